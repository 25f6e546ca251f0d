"""The packaged artifact on the real default model, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings, default_artifact
from calibration.canaries import generated
from detector import artifact as artifacts
from detector.backend import Ask
from detector.engine.collector import decoder_layers
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint, load_checkpoint
from detector.engine.model.default_model import NAME
from detector.engine.model.text import Text
from detector.trajectory import END, Look
from tests.app.clients import client_of, user

pytestmark = pytest.mark.default_model

IN_SCOPE = [
    "Maya had 24 stickers. She gave 9 of them to her brother. How many stickers does she have now?",
    "A baker puts 6 rolls in each bag. How many rolls are in 8 bags?",
    "Tom read 12 pages on Monday and 15 pages on Tuesday. How many pages did he read in all?",
    "There are 56 chairs in 7 equal rows. How many chairs are in each row?",
]
OUT_OF_SCOPE = [
    "Write a poem about the sea",
    "What is the capital of France?",
    "Find the sum of all complex roots of $z^4 + 4z^2 + 16 = 0$.",
    "Let $f(x) = \\frac{2x-3}{x+5}$. Compute $f^{-1}(4)$.",
    "Translate 'good morning' into Spanish.",
]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(create_app(Settings())) as client:
        yield client


def finish_reason(client: TestClient, messages: list[dict[str, str]]) -> str:
    body = {"messages": messages, "max_tokens": 4}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["finish_reason"])


def test_in_scope_questions_are_answered(client: TestClient) -> None:
    for question in IN_SCOPE:
        assert finish_reason(client, user(question)) == "length", question


def test_out_of_scope_questions_are_refused(client: TestClient) -> None:
    for question in OUT_OF_SCOPE:
        assert finish_reason(client, user(question)) == "content_filter", question


SOLUTION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "steps": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
        "answer": {"type": "integer"},
    },
    "required": ["steps", "answer"],
    "additionalProperties": False,
}


def test_answers_are_held_to_a_schema(client: TestClient) -> None:
    """What the model says in it is its own affair, but for a number where one is asked for."""
    wanted = {"type": "json_schema", "json_schema": {"name": "solution", "schema": SOLUTION}}
    body = {"messages": user(IN_SCOPE[1]), "max_tokens": 400, "response_format": wanted}
    answer = client.post("/v1/chat/completions", json=body).json()
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop", choice
    solution = json.loads(choice["message"]["content"])
    assert set(solution) == {"steps", "answer"}
    assert all(step.strip() for step in solution["steps"])
    tool = {"type": "function", "function": {"name": "solve", "parameters": SOLUTION}}
    body = {
        "messages": user(IN_SCOPE[1]),
        "max_tokens": 400,
        "tools": [tool],
        "tool_choice": "required",
    }
    (choice,) = client.post("/v1/chat/completions", json=body).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert set(json.loads(call["function"]["arguments"])) == {"steps", "answer"}
    body = {"messages": user(IN_SCOPE[1]), "max_tokens": 24, "tools": [tool]}
    (choice,) = client.post("/v1/chat/completions", json=body).json()["choices"]
    assert choice["message"]["content"] or choice["message"]["tool_calls"]


def test_what_the_app_and_the_model_say_shifts_nothing(client: TestClient) -> None:
    system = [{"role": "system", "content": "You are a patient tutor. Show every step."}]
    said = [*system, {"role": "assistant", "content": "What shall we work out?"}]
    assert finish_reason(client, said + user(IN_SCOPE[1])) == "length"
    turns = [*said, *user(IN_SCOPE[0]), {"role": "assistant", "content": "She has 15."}]
    assert finish_reason(client, turns + user(OUT_OF_SCOPE[0])) == "content_filter"
    assert finish_reason(client, turns + user(IN_SCOPE[1])) == "length"


QUESTION = "Tom read 12 pages on Monday and 15 pages on Tuesday. How many pages did he read in all?"


@pytest.mark.parametrize(
    "typed",
    [
        QUESTION,
        QUESTION.lower(),
        QUESTION.upper(),
        QUESTION.rstrip("?"),
        QUESTION.replace(". ", ".\n"),
        QUESTION.replace(" ", "\u00a0"),
        f"\ufeff{QUESTION}\u200b",
        f"**{QUESTION}**",
        f'"{QUESTION}"',
        f"Hi! {QUESTION}",
        f"{QUESTION} Thanks!",
        f"{QUESTION} Please explain step by step.",
        f"Question: {QUESTION}",
        f"{QUESTION}\nA) 27\nB) 25\nC) 3\nD) 180",
        "What is 3 + 4?",
        "What is 12 times 7?",
        "How many legs do 5 dogs and 3 chickens have?",
    ],
)
def test_wording_changes_nothing(client: TestClient, typed: str) -> None:
    assert finish_reason(client, user(typed)) == "length"


@pytest.mark.parametrize(
    "follow_up", ["And if he read 3 more?", "Why?", "thanks!", "can you explain that again"]
)
def test_follow_ups_are_judged_in_context(client: TestClient, follow_up: str) -> None:
    turns = [*user(QUESTION), {"role": "assistant", "content": "He read 27 pages."}]
    assert finish_reason(client, turns + user(follow_up)) == "length"


def test_packaged_artifact_is_what_it_says() -> None:
    path = default_artifact()
    assert path.stat().st_size <= 10e6
    manifest = artifacts.load(path).manifest
    assert manifest.model_name == NAME
    assert manifest.scope == "grade-school math questions"
    assert (manifest.n_layers, manifest.hidden_size) == (30, 576)
    # A question's words would stand in it as plain text: none do but the canaries', which are made
    # up, and of its neighbours those that are the project's own.
    assert manifest.canaries is not None
    assert manifest.neighbours is not None
    asked = [canary.messages[-1]["content"] for canary in manifest.canaries.questions]
    assert set(asked) <= {messages[-1]["content"] for messages in generated(200, 0)}
    kept = [each for each in manifest.neighbours.questions if each.text is not None]
    assert {each.file for each in kept} <= {"written", "kinds", "more-kinds"}
    asked += [each.text for each in kept if each.text]
    assert b"How many" not in path.read_bytes().replace(
        b"How many", b"", sum(text.count("How many") for text in asked)
    )
    assert (
        "How many"
        not in manifest.model_copy(update={"canaries": None, "neighbours": None}).model_dump_json()
    )


@torch.inference_mode()
def test_running_mean_equals_one_teacher_forced_pass_in_float32() -> None:
    checkpoint = load_checkpoint(NAME, "float32")
    request = Ask(Text(checkpoint.tokenizer).encode_question([IN_SCOPE[0]]).tokens, max_tokens=12)
    seen: list[torch.Tensor] = []

    def observer(look: Look, requests: object, trajectories: torch.Tensor) -> list[bool]:
        seen.append(trajectories[0].clone())
        return [False]

    engine = Engine(checkpoint, looks=(END,), observer=observer, n_slots=2, max_length=256)
    engine.submit(request)
    tokens: list[int] = []
    while engine.busy:
        tokens += [step.token for step in engine.step() if step.token is not None]
    engine.close()
    expected = teacher_forced_mean(checkpoint, request.prompt, tokens)
    error = (seen[0] - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(error.max()) <= 1e-5


def teacher_forced_mean(
    checkpoint: Checkpoint, prompt: tuple[int, ...], tokens: list[int]
) -> torch.Tensor:
    last: list[torch.Tensor] = []
    handle = decoder_layers(checkpoint.model)[-1].register_forward_hook(
        lambda module, args, output: last.append(output)
    )
    ids = torch.tensor([[*prompt, *tokens]])
    states = checkpoint.model(ids, output_hidden_states=True, use_cache=False).hidden_states
    handle.remove()
    planes = torch.stack([*states[:-1], last[0]])[:, 0]
    start = len(prompt) - 1
    return planes[:, start : start + len(tokens)].mean(1)
