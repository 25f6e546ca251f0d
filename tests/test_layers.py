"""The direction of imports, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "detector": {"app", "calibration"},
    "calibration": {"app"},
    "app": {"calibration"},
}
ENGINE_ONLY = {"transformers", "tokenizers"}
BENCH = ROOT / "calibration" / "bench"
MODELS_APART = {
    BENCH / name
    for name in (
        "paper/finetune.py",
        "scope/embedding.py",
        "speed/contenders.py",
        "speed/floor.py",
        "speed/grammar_libraries.py",
        "speed/growth.py",
    )
}
PLUGIN = set((ROOT / "app" / "vllm_plugin").glob("*.py"))
COMMAND_LINES = (
    "trajguard.py",
    "calibration/__main__.py",
    "calibration/bench/drift/__main__.py",
    "calibration/bench/paper/__main__.py",
    "calibration/bench/responses/__main__.py",
    "calibration/bench/scope/__main__.py",
    "calibration/bench/speed/__main__.py",
    "calibration/bench/streaming/__main__.py",
    "app/load_settings.py",
)
CALIBRATION_EXTRA = {"httpx2", "matplotlib", "peft", "pyarrow", "sklearn", "tqdm"}


def imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Top-level names of the modules that a file imports; `at_import`: outside functions."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    if at_import:
        inside = {
            id(node)
            for function in nodes
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        nodes = [node for node in nodes if id(node) not in inside]
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_downwards(package: str) -> None:
    for path in sources(package):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & FORBIDDEN[package], path


def test_only_the_engine_training_and_its_rivals_import_transformers() -> None:
    for path in sources("detector") + sources("calibration") + sources("app"):
        if "engine" not in path.parts and path not in MODELS_APART:
            roots = {name.split(".")[0] for name in imports(path)}
            assert not roots & ENGINE_ONLY, path


@pytest.mark.parametrize("name", ["trajectory", "gaussian", "scores"])
def test_numbers_need_torch_alone(name: str) -> None:
    roots = {module.split(".")[0] for module in imports(ROOT / "detector" / f"{name}.py")}
    standard = {"__future__", "collections", "dataclasses", "functools", "math", "typing"}
    assert roots <= standard | {"torch", "detector"}


@pytest.mark.parametrize("command_line", COMMAND_LINES)
def test_command_lines_start_without_transformers(command_line: str) -> None:
    """Bad input is told before the seconds that transformers takes to import, and to who
    has not installed what calibration needs.
    """
    seen: set[Path] = set()
    queue = [ROOT / command_line]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports(path, at_import=True):
            assert name.split(".")[0] not in ENGINE_ONLY | CALIBRATION_EXTRA, (path, name)
            module = ROOT / Path(*name.split("."))
            queue += [file for file in (module.with_suffix(".py"),) if file.exists()]
    assert len(seen) >= 6


def test_bodies_are_pydantic_alone() -> None:
    allowed = {"__future__", "collections", "typing", "pydantic", "pydantic_core"}
    for path in (ROOT / "app" / "wire").glob("*.py"):
        outside = {
            name for name in imports(path) if not name.startswith(("app.wire", "app.policy"))
        }
        assert {name.split(".")[0] for name in outside} <= allowed, path


def test_the_application_knows_the_backend_and_not_the_engine() -> None:
    """Loading opens the engine, its own or vLLM's; the settings know the default model's name, and
    which of vLLM's options are served. The plugin is inside vLLM's own server.
    """
    engines = ("detector.engine", "detector.vllm")
    for path in sources("app"):
        known = {name for name in imports(path) if name.startswith(engines)}
        if path.name == "settings.py":
            known -= {name for name in known if "default_model" in name or "options" in name}
        assert not known or path.name in ("loading.py", "engines.py") or path in PLUGIN, path


def test_vllm_is_known_to_its_backend_alone_and_there_to_a_few() -> None:
    """Where there is none, all else works, and what is pooled and whose turn it is are tested."""
    knowing = {"backend.py", "opening.py", "params.py", "stopping.py", "worker.py"}
    peers = {BENCH / "speed" / "vllm_peer.py", *PLUGIN}
    for path in {*sources("detector"), *sources("calibration"), *sources("app")} - peers:
        roots = {name.split(".")[0] for name in imports(path)}
        assert "vllm" not in roots or path in {ROOT / "detector/vllm" / name for name in knowing}
    for path in sources("detector") + sources("calibration"):
        if path.parent != ROOT / "detector/vllm" and path != ROOT / "calibration/engines.py":
            assert not any(name.startswith("detector.vllm") for name in imports(path)), path


def test_the_application_starts_and_is_tested_without_torch() -> None:
    """Its OpenAPI document too; only what runs the real engine needs torch."""
    engine = {
        "by_answers",
        "canaries",
        "chat",
        "check",
        "choices",
        "ends",
        "explain",
        "faults",
        "leaving",
        "readiness",
        "reloading",
        "standing",
    }
    engine |= {"openai_client", "score", "scoring", "structured"}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests/app").glob("test_*.py")}
    assert engine < tests
    modules = [f"tests.app.test_{name}" for name in sorted(tests - engine)]
    program = "\n".join(
        [
            "import sys",
            "absent = ('torch', 'transformers', 'tokenizers', 'numpy')",
            "sys.modules |= dict.fromkeys(absent)",
            "from tests.app.recorded import recorded_app",
            "assert '/v1/score' in recorded_app().openapi()['paths']",
            *(f"import {module}" for module in modules),
        ]
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_instruments_are_no_part_of_calibration() -> None:
    for path in sources("calibration"):
        if BENCH not in path.parents:
            assert not any(name.startswith("calibration.bench") for name in imports(path)), path


def test_no_file_has_a_name_that_says_nothing() -> None:
    stems = {path.stem for package in FORBIDDEN for path in sources(package)}
    assert not stems & {"utils", "util", "common", "helpers", "core", "misc"}


def test_vllm_imports_the_plugin_whatever_is_missing() -> None:
    """What it cannot import it goes on without, unguarded."""
    (registering,) = (path for path in PLUGIN if path.name == "registering.py")
    assert imports(registering, at_import=True) <= {
        "__future__",
        "__future__.annotations",
        "os",
        "sys",
        "typing",
        "typing.TYPE_CHECKING",
        "typing.Any",
        # For type checkers alone.
        "app.vllm_plugin.endpoint",
        "app.vllm_plugin.endpoint.Endpoint",
    }
