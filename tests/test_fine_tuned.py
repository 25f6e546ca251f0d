"""A model that is fine-tuned on its scope, guarded by the volatility of its responses: every step
by its command, to a streamed response that is stopped before its end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import trajguard
from app.main import create_app
from app.settings import Settings
from calibration.bench.paper.__main__ import main as paper
from calibration.generate import generate
from tests.app.clients import CHAT, client_of, user
from tests.app.test_moderation import events
from tests.tiny import tiny_checkpoint

TEMPLATE = r"Q: {question}\nA:"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder, with its questions files beside it."""
    folder = tmp_path_factory.mktemp("fine-tuned")
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(folder / "model")
    # A base model, without a chat template.
    checkpoint.tokenizer.chat_template = None
    checkpoint.tokenizer.save_pretrained(folder / "model")
    rows = [{"question": q, "answer": f"It is {a}, for so it is."} for q, a in generate(330, 0)]
    for name, some in {"train": rows[:30], "scope": rows[30:]}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    train, tuned = folder / "train.jsonl", folder / "tuned"
    options = ["--model", str(folder / "model"), "--first", "100", "--epochs", "1"]
    assert paper(["finetune", str(train), *options, "--out", str(tuned)]) == 0
    return tuned


@pytest.fixture(scope="module")
def client(tuned: Path) -> Iterator[TestClient]:
    folder = tuned.parent
    scope = folder / "scope.jsonl"
    looks = ["--looks", "prompt,1-12/4", "--max-tokens", "16", "--template", TEMPLATE]
    named = ["--model", str(tuned), "--out", str(folder / "collected")]
    assert trajguard.main(["collect", str(scope), *looks, *named]) == 0
    fit = ["fit", str(folder / "collected" / "scope"), "--scope", "sums", "--rank", "8"]
    artifact = folder / "tv.safetensors"
    guard = ["--known-templates", "--guard", "1-12/4:tv-paper", "--out", str(artifact)]
    assert trajguard.main([*fit, *guard]) == 0
    settings = Settings(model=str(tuned), artifact=artifact, mode="refuse", max_length=512)
    with client_of(create_app(settings)) as client:
        yield client


def streamed(client: TestClient, question: str) -> tuple[list[Any], dict[str, Any]]:
    """What was sent, and the last verdict; without one where it ended before the first look."""
    usage = {"stream_options": {"include_usage": True}}
    body = {"messages": user(question), "stream": True, "max_tokens": 16, **usage}
    chunks = events(client.post(CHAT, json=body))
    verdicts = [chunk["trajguard"] for chunk in chunks if "trajguard" in chunk]
    return chunks, verdicts[-1] if verdicts else {"looks": [], "decision": "allow"}


def test_a_streamed_response_is_stopped_early(client: TestClient) -> None:
    ended = []
    for n in range(6):
        chunks, verdict = streamed(client, "~^{}" * (20 + n))
        if verdict["decision"] == "refuse":
            assert {look["name"] for look in verdict["looks"]} == {"tv-paper"}
            assert verdict["stage"] == "response"
            assert chunks[-1]["usage"]["completion_tokens"] < 16
            ended.append(verdict["looks"][-1]["look"])
    assert ended
    metrics = client.get("/metrics").text
    for look in set(ended):
        assert f'trajguard_stopped_total{{look="{look}"}} {ended.count(look)}.0' in metrics


def test_what_it_was_trained_on_is_told(tuned: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [str(tuned.parent / f"{name}.jsonl") for name in ("train", "few")]
    (tuned.parent / "few.jsonl").write_text('{"question": "What is 1 + 2?"}')
    options = ["--model", str(tuned), "--template", TEMPLATE, "--out", str(tuned.parent / "again")]
    with caplog.at_level(logging.WARNING):
        assert trajguard.main(["collect", *files, *options]) == 0
        assert "30 of 31 questions are among those" in caplog.text
        caplog.clear()
        assert trajguard.main(["collect", files[1], *options]) == 0
        assert "fine-tuned" not in caplog.text


def test_responses_to_questions_of_the_scope_go_on(client: TestClient) -> None:
    """At alpha 0.05 most of any six do."""
    decisions = [streamed(client, question)[1]["decision"] for question, _ in generate(6, seed=7)]
    assert decisions.count("allow") >= 3
