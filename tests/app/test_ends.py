"""Deadlines and NaN over HTTP: an error in the one shape, for that request alone."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient

from detector.artifact import Artifact
from tests.app.clients import IN_SCOPE, client_of, error_of, loaded_of, user
from tests.app.serving import engine_of, make_app

URL = "/v1/chat/completions"
LONG = {"messages": user(IN_SCOPE), "max_tokens": 300, "ignore_eos": True}


@pytest.fixture
def app(artifact: Artifact) -> FastAPI:
    return make_app(artifact, n_slots=1, mode="flag")


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


def poison(app: FastAPI, token: int) -> None:
    """NaN as a token's embedding."""
    embeddings = engine_of(app).checkpoint.model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    with torch.no_grad():
        embeddings.weight[token] = torch.nan


def tick_by_step(app: FastAPI) -> None:
    """A clock on which each engine step takes a second."""
    engine_of(app)._schedule._clock = itertools.count().__next__


def test_deadline_ends_a_running_request(app: FastAPI, client: TestClient) -> None:
    tick_by_step(app)
    response = client.post(URL, json={**LONG, "trajguard": {"timeout_seconds": 5}})
    error = error_of(response, 504)
    assert response.headers["x-should-retry"] == "false"
    assert error["code"] == "timeout"
    assert error["param"] == "trajguard.timeout_seconds"
    assert "tokens in its 5 seconds" in error["message"]
    assert client.post(URL, json={**LONG, "max_tokens": 4}).status_code == 200


def test_deadline_in_a_stream_is_an_event_without_done(app: FastAPI, client: TestClient) -> None:
    tick_by_step(app)
    body = {**LONG, "stream": True, "trajguard": {"timeout_seconds": 50}}
    response = client.post(URL, json=body)
    assert response.status_code == 200
    assert '"content":' in response.text
    assert '{"error":{"message":"the request made' in response.text
    assert "[DONE]" not in response.text


def test_a_request_cannot_have_more_time_than_the_service_gives(artifact: Artifact) -> None:
    app = make_app(artifact, timeout_seconds=5)
    with client_of(app) as client:
        tick_by_step(app)
        for timeout in ({}, {"timeout_seconds": 1000}):
            error = error_of(client.post(URL, json={**LONG, "trajguard": timeout}), 504)
            assert "in its 5 seconds" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_deadline_of_a_waiting_request_is_told_by_the_status(
    app: FastAPI, client: TestClient, stream: bool
) -> None:
    """The engine's thread stands still until both requests are in the queue."""
    ticks = itertools.count()
    submitted = [threading.Event(), threading.Event()]
    arrivals = iter(submitted)

    def clock() -> float:
        if threading.current_thread().name == "engine":
            assert submitted[1].wait(timeout=60)
            return next(ticks)
        next(arrivals).set()
        return next(ticks)

    engine_of(app)._schedule._clock = clock
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, URL, json={**LONG, "max_tokens": 40})
        assert submitted[0].wait(timeout=60)
        waiting = {**LONG, "stream": stream, "trajguard": {"timeout_seconds": 3}}
        error = error_of(client.post(URL, json=waiting), 504)
        assert "did not get to its first token in its 3 seconds" in error["message"]
        assert running.result().json()["usage"]["completion_tokens"] == 40


@pytest.mark.parametrize("body", [{}, {"stream": True}, {"n": 3}, {"n": 3, "stream": True}])
def test_nan_in_a_prompt_fails_that_request_with_500(
    app: FastAPI, client: TestClient, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    sound = client.post(URL, json={"messages": user(IN_SCOPE), "max_tokens": 4}).json()
    poison(app, loaded_of(app).codec.encode_response("~")[0])
    error = error_of(client.post(URL, json={"messages": user(f"{IN_SCOPE} ~"), **body}), 500)
    assert error["code"] == "engine_error"
    assert "NaN" in error["message"]
    score = client.post("/v1/score", json={"messages": user(f"{IN_SCOPE} ~")})
    assert "NaN" in error_of(score, 500)["message"]
    again = client.post(URL, json={"messages": user(IN_SCOPE), "max_tokens": 4}).json()
    assert again["choices"] == sound["choices"]
    assert "a request failed" in caplog.text
    assert "Rosa" not in caplog.text


def test_nan_in_mid_stream_is_an_event_without_done(app: FastAPI, client: TestClient) -> None:
    body = {"messages": user(IN_SCOPE), "max_tokens": 12, "temperature": 1.0, "seed": 2}
    (choice,) = client.post(URL, json={**body, "logprobs": True}).json()["choices"]
    text = loaded_of(app).codec
    token_of = {text.token_bytes(token): token for token in range(1, 257)}
    tokens = [token_of[bytes(each["bytes"])] for each in choice["logprobs"]["content"]]
    early = {*text.encode_question([IN_SCOPE]).tokens, *tokens[:3]}
    poison(app, next(token for token in tokens[3:] if token not in early))
    streamed = client.post(URL, json={**body, "stream": True})
    assert streamed.status_code == 200
    assert '"code":"engine_error"' in streamed.text
    assert "[DONE]" not in streamed.text
