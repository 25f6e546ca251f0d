"""Streams put together again: what a client assembles is what JSON would have said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.app.clients import CHAT, IN_SCOPE, client_of, loaded_of, user
from tests.app.recorded import END_TOKEN, recorded_app


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return recorded_app()


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


def assembled(client: TestClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    """By choice: its text, logprobs and ending. Lines are split as Unicode does, which is at
    more than an event stream's ends of lines.
    """
    made: list[dict[str, Any]] = [
        {"text": "", "logprobs": [], "ending": None} for _ in range(body["n"])
    ]
    with client.stream("POST", CHAT, json={**body, "stream": True}) as response:
        assert response.status_code == 200
        lines = "".join(response.iter_text()).splitlines()
    assert lines[1::2] == [""] * (len(lines) // 2)
    events = [line.removeprefix("data: ") for line in lines[::2]]
    assert events.pop() == "[DONE]"
    for event in events:
        for choice in json.loads(event)["choices"]:
            mine = made[choice["index"]]
            assert mine["ending"] is None
            mine["text"] += choice["delta"].get("content", "")
            mine["logprobs"] += (choice["logprobs"] or {"content": []})["content"]
            mine["ending"] = choice["finish_reason"]
    return made


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    response=st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20).map(
            str.encode
        ),
        st.binary(max_size=20),
    ),
    n=st.integers(1, 3),
    max_tokens=st.integers(1, 30),
    stop=st.lists(st.text(min_size=1, max_size=2).filter(str.isprintable), max_size=4),
    logprobs=st.booleans(),
)
@example("a\u2028b\x85c\u2029d\r\n\x0b\x1c".encode(), 1, 30, [], False)
@example("é".encode()[:1] * 3, 2, 2, [], True)
def test_a_stream_says_what_json_says(
    app: FastAPI,
    client: TestClient,
    response: bytes,
    n: int,
    max_tokens: int,
    stop: list[str],
    logprobs: bool,
) -> None:
    backend: Any = loaded_of(app).engine._backend
    backend._tokens = [*response, END_TOKEN]
    body = {
        "messages": user(IN_SCOPE),
        "n": n,
        "max_tokens": max_tokens,
        "stop": stop,
        "logprobs": logprobs,
    }
    answer = client.post(CHAT, json=body).json()
    whole = [
        {
            "text": choice["message"]["content"],
            "logprobs": (choice["logprobs"] or {"content": []})["content"],
            "ending": choice["finish_reason"],
        }
        for choice in answer["choices"]
    ]
    assert assembled(client, body) == whole
    text = bytes([*response, 0][: ([*response, 0]).index(0)][:max_tokens]).decode(errors="replace")
    if not stop:
        assert all(choice["text"] == text for choice in whole)
