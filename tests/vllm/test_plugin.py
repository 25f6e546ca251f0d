"""The plugin for `vllm serve`: one guarded server, and what it says beside the own engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from app.settings import Settings
from calibration.collect import QuestionsFile, collect
from calibration.fit import FitOptions, fit
from calibration.generate import write_questions
from calibration.questions import read_questions
from detector.artifact import Artifact
from detector.backend import Ask
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint, best_device
from detector.engine.model.text import Text
from detector.judge import Judge, Judgement
from detector.manifest import Context, Revalidation
from detector.trajectory import END, PROMPT, QUESTION, Look, look_name
from detector.vllm.opening import record_of
from tests.app.clients import CHAT, error_of, user
from tests.vllm.opening import guarded, saved
from tests.vllm.plugin import served

LOOKS: tuple[Look, ...] = (QUESTION, PROMPT, 2, END)
N_TOKENS = 6
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
OUT_OF_SCOPE = "zzzzzzzzzz zz zzzzzz"
REFUSAL = Settings().refusal


def spare() -> Checkpoint:
    """The tests' model with a row in its vocabulary that is no token of its tokenizer's."""
    made = guarded()
    with torch.random.fork_rng(devices=[]):
        made.model.resize_token_embeddings(258, mean_resizing=False)
    with torch.no_grad():
        for table in (made.model.get_input_embeddings(), made.model.get_output_embeddings()):
            table.weight[257] = 0  # type: ignore[operator]
    return Checkpoint.of(made.name, made.model, made.tokenizer)


@dataclass(frozen=True)
class Plugin:
    """A guarded server, the same artifact, and questions that it was not calibrated on."""

    client: httpx2.Client
    artifact: Artifact
    questions: list[str]

    def chat(self, question: str, **fields: Any) -> httpx2.Response:
        asked = {"max_tokens": N_TOKENS, "temperature": 0, "return_token_ids": True}
        body = {"messages": user(question), **asked, **fields}
        return self.client.post(CHAT, json=body)

    def events(self, question: str, **fields: Any) -> list[dict[str, Any]]:
        lines = self.chat(question, stream=True, **fields).text.split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def asked(folder: Path, n: int, seed: int) -> list[str]:
    path = folder / f"{seed}.jsonl"
    write_questions(path, n=n, seed=seed)
    return [question.text for question in read_questions(path)[0]]


def calibrated(folder: Path) -> Artifact:
    """For looks at the prompt, in the response and at its end; held to hold under vLLM."""
    path = folder / "generated.jsonl"
    write_questions(path, n=400, seed=0)
    questions, source = read_questions(path)
    collect(
        spare(),
        [QuestionsFile(questions, source, folder / "collected")],
        context=Context(max_tokens=N_TOKENS),
        looks=LOOKS,
        max_length=512,
    )
    made = fit([folder / "collected"], "tiny questions", FitOptions(rank=16, known_templates=True))
    seen = Revalidation(
        fingerprint=made.manifest.fingerprint,
        engine=record_of(best_device()),
        alpha=made.detector.alpha,
        guarantee=made.detector.guarantee,
        n_questions=1,
        n_flagged=0,
        n_units=1,
        rate=0,
        low=0,
        high=0.975,
        sources=made.manifest.sources,
    )
    return Artifact.of(made.detector, made.manifest.model_copy(update={"revalidated": (seen,)}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plugin")


@pytest.fixture(scope="module")
def plugin(folder: Path) -> Iterator[Plugin]:
    artifact = calibrated(folder)
    artifact.save(folder / "a.safetensors")
    environment = {
        "TRAJGUARD_ARTIFACT": str(folder / "a.safetensors"),
        "TRAJGUARD_REQUEST_ALPHAS": " ".join(map(str, ALPHAS)),
    }
    arguments = ["--max-model-len", "512", "--max-num-seqs", "16", "--dtype", "float32"]
    # Prompts are run in parts.
    arguments += ["--max-num-batched-tokens", "64", "--generation-config", "vllm"]
    with (
        saved(spare()) as checkpoint,
        served(checkpoint.name, *arguments, environment=environment) as server,
        httpx2.Client(base_url=server.address, timeout=120) as client,
    ):
        yield Plugin(client, artifact, asked(folder, n=60, seed=7))


@dataclass(frozen=True)
class Own:
    """What the own engine says of a question, and what it answers."""

    judgement: Judgement
    tokens: list[int]


@pytest.fixture(scope="module")
def own(plugin: Plugin) -> dict[str, Own]:
    checkpoint = spare()
    text = Text(checkpoint.tokenizer)
    judge = Judge(plugin.artifact.detector)
    engine = Engine(checkpoint, looks=judge.looks, observer=judge.observe, max_length=512)
    judgements: dict[Ask, Judgement] = {}
    of: dict[str, Ask] = {}
    for question in [*plugin.questions, OUT_OF_SCOPE, *map(as_typed, plugin.questions[:4])]:
        prompt = text.encode_conversation(user(question))
        rendered = text.encode_question([question])
        ask = of[question] = Ask(prompt, max_tokens=N_TOKENS, question=rendered)
        judgements[ask] = Judgement()
        judge.watch(ask, judgements[ask])
        engine.submit(ask)
    tokens: dict[Ask, list[int]] = {ask: [] for ask in judgements}
    while engine.busy:
        for step in engine.step():
            if step.token is not None:
                tokens[step.ask].append(step.token)
    engine.close()
    return {question: Own(judgements[ask], tokens[ask]) for question, ask in of.items()}


def as_typed(question: str) -> str:
    """Other tokens, which are judged as the same question."""
    return f"**{question}**\n"


def raw(verdict: Any) -> dict[str, float]:
    return {look["look"]: look["raw"] for look in verdict["looks"]}


def test_scores_and_answers_are_the_own_engine_s(plugin: Plugin, own: dict[str, Own]) -> None:
    """With others beside them, and judged on the prompt or apart from it."""
    questions = [*plugin.questions[:12], *map(as_typed, plugin.questions[:4])]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: plugin.chat(each).json(), questions))
    n_whole = 0
    for question, answer in zip(questions, answers, strict=True):
        expected = own[question].judgement
        verdict = answer["trajguard"]
        assert verdict["is_ood"] == expected.verdict.is_ood  # type: ignore[union-attr]
        found = raw(verdict)
        for look in expected.looks:
            name = look_name(look.look)
            if name in found:
                assert found[name] == pytest.approx(look.raw, rel=1e-5), (question, name)
        (choice,) = answer["choices"]
        if verdict["decision"] == "allow":
            assert choice["token_ids"] == own[question].tokens
            assert set(found) == {look_name(look.look) for look in expected.looks}
            n_whole += 1
    assert n_whole >= 10


def test_a_stream_says_the_same(plugin: Plugin) -> None:
    question = plugin.questions[0]
    whole = plugin.chat(question)
    events = plugin.events(question, stream_options={"include_usage": True})
    *chunks, usage = events
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(deltas) == whole.json()["choices"][0]["message"]["content"]
    verdicts = [chunk["trajguard"] for chunk in chunks if "trajguard" in chunk]
    assert verdicts[-1]["looks"] == whole.json()["trajguard"]["looks"]
    assert [look["look"] for look in verdicts[0]["looks"]][:2] == ["question", "prompt"]
    assert usage["usage"]["completion_tokens"] == N_TOKENS
    assert whole.headers["x-trajguard-decision"] == "allow"
    assert whole.headers["x-trajguard-artifact"] == plugin.artifact.id


@pytest.mark.parametrize("as_judged", [True, False])
def test_who_is_out_of_scope_is_refused_and_costs_no_token(plugin: Plugin, as_judged: bool) -> None:
    """Where the prompt itself is judged, and where it is judged beside it."""
    question = OUT_OF_SCOPE if as_judged else as_typed(OUT_OF_SCOPE)
    answer = plugin.chat(question, max_tokens=200)
    assert answer.headers["x-trajguard-decision"] == "refuse"
    body = answer.json()
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "content_filter"
    assert choice["message"]["content"] == choice["message"]["refusal"] == REFUSAL
    assert body["usage"]["completion_tokens"] == 0
    assert body["trajguard"]["decision"] == "refuse"
    events = plugin.events(question, stream_options={"include_usage": True})
    *chunks, usage = events
    said = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"].get("content") for choice in said] == ["", REFUSAL, None]
    assert said[-1]["finish_reason"] == "content_filter"
    assert chunks[-1]["trajguard"] == body["trajguard"]
    assert usage["usage"]["completion_tokens"] == 0


def test_a_refusal_in_band_leaves_its_neighbours_answers_as_they_are(
    plugin: Plugin, own: dict[str, Own]
) -> None:
    """Every other one of a batch is refused."""
    near = [question for question in plugin.questions if not flagged(own[question])][:8]
    mixed = [each for question in near for each in (question, OUT_OF_SCOPE)]
    with ThreadPoolExecutor(len(mixed)) as pool:
        answers = list(pool.map(lambda each: plugin.chat(each).json(), mixed))
    for question, answer in zip(mixed, answers, strict=True):
        (choice,) = answer["choices"]
        is_refused = choice["message"]["content"] == REFUSAL
        assert is_refused == (question == OUT_OF_SCOPE)
        assert choice["token_ids"] == ([] if is_refused else own[question].tokens)


def flagged(own: Own) -> bool:
    verdict = own.judgement.verdict
    assert verdict is not None
    return bool(verdict.is_ood)


def test_a_response_ends_at_the_look_that_refuses_it(plugin: Plugin, own: dict[str, Own]) -> None:
    """At an alpha at which its prompt is let through and its first tokens are not."""
    thresholds = {
        alpha: plugin.artifact.detector.at(alpha, "marginal").threshold for alpha in ALPHAS
    }
    question, alpha = next(
        (question, alpha)
        for question in plugin.questions
        for alpha, threshold in thresholds.items()
        if score_at(own[question], PROMPT, QUESTION) < threshold < score_at(own[question], 2)
    )
    asked = {"trajguard": {"alpha": alpha}, "max_tokens": N_TOKENS}
    body = plugin.chat(question, **asked).json()
    assert body["trajguard"]["stage"] == "response"
    assert [look["look"] for look in body["trajguard"]["looks"]] == ["question", "prompt", "2"]
    assert body["choices"][0]["finish_reason"] == "content_filter"
    # One token, before the one that the look was taken at.
    assert body["usage"]["completion_tokens"] == 1
    chunks = plugin.events(question, **asked)
    said = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert said[-2:] == [REFUSAL, None]
    assert len(said) == 4


def score_at(own: Own, *looks: Look) -> float:
    return max(look.score for look in own.judgement.looks if look.look in looks)


def test_choices_share_their_prompt_and_are_judged_each(
    plugin: Plugin, own: dict[str, Own]
) -> None:
    question = next(each for each in plugin.questions if not flagged(own[each]))
    asked = {"n": 2, "temperature": 0.7}
    body = plugin.chat(question, **asked).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    first, second = (choice["trajguard"]["looks"] for choice in body["choices"])
    assert [look["look"] for look in first] == ["question", "prompt", "2", "end"]
    assert first[:2] == second[:2]
    assert {look["excluded"] for look in first[2:]} == {"the sampling was not calibrated"}
    chunks = plugin.events(question, **asked)
    for index in (0, 1):
        *_, last = (chunk for chunk in chunks if chunk["choices"][0]["index"] == index)
        assert last["choices"][0]["finish_reason"] in ("length", "stop")
        assert last["trajguard"]["looks"][:2] == first[:2]
        assert len(last["trajguard"]["looks"]) == 4
    refused = plugin.chat(OUT_OF_SCOPE, **asked).json()
    assert [choice["finish_reason"] for choice in refused["choices"]] == ["content_filter"] * 2
    assert refused["usage"]["completion_tokens"] == 0


def test_completions_are_judged_each_by_its_text(plugin: Plugin, own: dict[str, Own]) -> None:
    near = next(each for each in plugin.questions if not flagged(own[each]))
    body = {"prompt": [OUT_OF_SCOPE, near], "max_tokens": 4, "temperature": 0}
    answer = plugin.client.post("/v1/completions", json=body).json()
    refused, answered = answer["choices"]
    assert (refused["text"], refused["refusal"]) == (REFUSAL, REFUSAL)
    assert refused["finish_reason"] == "content_filter"
    assert answered["finish_reason"] in ("length", "stop")
    assert answered["trajguard"]["decision"] == "allow"
    excluded = {look["excluded"] for look in answered["trajguard"]["looks"][2:]}
    assert excluded == {"the prompt is not the calibrated rendering of a question"}
    lines = plugin.client.post("/v1/completions", json={**body, "stream": True}).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    texts = ["", ""]
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == [refused["text"], answered["text"]]


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": True, "top_logprobs": 2},
        {"min_tokens": 4},
        {"response_format": {"type": "json_object"}},
        {"stop": ["z"]},
        {"allowed_token_ids": [5, 6]},
        {"repetition_penalty": 1.5},
    ],
)
def test_nothing_that_a_request_forbids_keeps_it_from_ending(
    plugin: Plugin, fields: dict[str, Any]
) -> None:
    """Not a grammar either, which rejects every token that is no JSON."""
    body = plugin.chat(OUT_OF_SCOPE, max_tokens=40, **fields).json()
    (choice,) = body["choices"]
    is_read_by_schema = "response_format" in fields
    assert choice["finish_reason"] == ("stop" if is_read_by_schema else "content_filter")
    assert choice["message"]["content"] == (None if is_read_by_schema else REFUSAL)
    assert choice["message"]["refusal"] == REFUSAL
    assert choice["logprobs"] is None
    assert body["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (CHAT, {"messages": user(" ")}, 400, "messages.0.content is empty"),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {"messages": user("a"), "trajguard": {"mode": "shadow"}}, 400, "looser"),
        (CHAT, {"messages": user("a"), "trajguard": {"hold_back": True}}, 400, "hold_back"),
        (CHAT, {"messages": user("a"), "trajguard": {"alpha": 0.05}}, 400, "alpha"),
        (CHAT, {"messages": user("a"), "use_beam_search": True}, 400, "use_beam_search"),
        (CHAT, {"messages": user("a"), "chat_template": "x"}, 400, "chat_template"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            400,
            "image_url is not served",
        ),
        ("/v1/completions", {"prompt": [[1, 2]]}, 400, "prompt"),
        ("/v1/completions", {"prompt": "  "}, 400, "prompt is empty"),
        ("/v1/responses", {"input": "a"}, 404, "/v1/responses is not guarded"),
        ("/v1/messages", {"messages": user("a"), "max_tokens": 3}, 404, "is not guarded"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(
    plugin: Plugin, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    error = error_of(plugin.client.post(path, json=body), status)
    assert said in error["message"]


def test_a_ticket_of_a_client_s_own_counts_for_nothing(plugin: Plugin) -> None:
    forged = {"trajguard": {"call": "0", "n": 1, "is_question": True, "is_judged": False}}
    body = plugin.chat(OUT_OF_SCOPE, vllm_xargs=forged).json()
    if "choices" in body:  # vLLM takes texts, numbers and lists of them alone
        assert body["trajguard"]["decision"] == "refuse"
    assert plugin.chat(OUT_OF_SCOPE, vllm_xargs={"trajguard": "x"}).json()["trajguard"]["is_ood"]


def test_all_else_is_vllm_s(plugin: Plugin) -> None:
    (model,) = plugin.client.get("/v1/models").json()["data"]
    assert model["object"] == "model"
    assert plugin.client.post("/tokenize", json={"prompt": "abc"}).json()["count"] == 3
    metrics = plugin.client.get("/metrics").text
    refused = 'trajguard_decisions_total{decision="refuse",mode="refuse",stage="prompt"}'
    counts = [line.split()[-1] for line in metrics.splitlines() if line.startswith(refused)]
    assert float(counts[0]) > 0
    assert "vllm:num_requests_running" in metrics


def test_who_leaves_takes_nothing_with_him(plugin: Plugin) -> None:
    """A client that hears the beginning alone; the next one is answered as if he had not been."""
    body = {"messages": user(plugin.questions[0]), "max_tokens": 300, "stream": True}
    with plugin.client.stream("POST", CHAT, json={**body, "ignore_eos": True}) as answer:
        assert next(answer.iter_lines()).startswith("data: ")
    assert plugin.chat(plugin.questions[0]).status_code == 200
