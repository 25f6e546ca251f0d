"""`Retry-After` follows queue and engine, and spreads those who come back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.retry_after import LEAST_SECONDS, MOST_SECONDS, RetryAfter
from detector.backend import Ask
from tests.app.clients import CHAT, IN_SCOPE, OUT_OF_SCOPE, client_of, error_of, loaded_of, user
from tests.app.recorded import recorded_app


def estimate(now: list[float]) -> RetryAfter:
    """Of an engine that has ended a request in every 2 seconds of work."""
    made = RetryAfter(lambda: now[0])
    for _ in range(5):
        made.worked(1.5, 0)
        made.worked(0.5, 1)
    return made


def test_half_of_the_queue_is_waited_for_and_then_one_after_another() -> None:
    now = [100.0]
    made = estimate(now)
    assert [made.seconds(8) for _ in range(3)] == [8, 10, 12]
    now[0] = 111.0
    # The last one comes back at 112; who comes now is to come 2 seconds later.
    assert made.seconds(0) == 3
    now[0] = 200.0
    assert made.seconds(8) == 8


def test_it_is_a_whole_number_within_bounds() -> None:
    made = estimate([0.0])
    assert made.seconds(10**6) == MOST_SECONDS
    assert made.seconds(10**6) == MOST_SECONDS
    assert RetryAfter(lambda: 0.0).seconds(50) == LEAST_SECONDS
    fast = RetryAfter(lambda: 0.0)
    fast.worked(0.01, 20)
    assert fast.seconds(3) == LEAST_SECONDS


def test_what_was_long_ago_is_forgotten() -> None:
    made = estimate([0.0])
    for _ in range(64):
        made.worked(0.375, 3)
    assert made.seconds(80) == 5


def test_a_full_queue_answers_before_a_body_is_validated() -> None:
    """One runs, one waits; the third is refused although its body is wrong."""
    app = recorded_app(n_slots=1, max_queue=1)
    with client_of(app) as client, ThreadPoolExecutor(2) as pool:
        backend: Any = loaded_of(app).engine._backend
        engine: Any = loaded_of(app).engine
        for _ in range(4):
            engine._retry_after.worked(30.0, 1)
        step, go, full = backend.step, threading.Event(), threading.Event()

        def stepped() -> Any:
            capacity = backend.capacity()
            if go.is_set() or not capacity.n_running:
                return step()
            if capacity.n_waiting:
                full.set()
                go.wait(timeout=60)
                return step()
            return []

        backend.step = stepped
        answers = [pool.submit(client.post, CHAT, json={"messages": user(IN_SCOPE)})]
        while not backend.capacity().n_running:
            pass
        answers.append(pool.submit(client.post, CHAT, json={"messages": user(IN_SCOPE)}))
        assert full.wait(timeout=60)
        for path in (CHAT, "/v1/score"):
            refused = client.post(path, json={"messages": 5})
            assert error_of(refused, 429)["code"] == "queue_full"
            assert int(refused.headers["retry-after"]) >= 15
        go.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]


def test_tokens_that_wait_are_bounded_too() -> None:
    app = recorded_app(n_slots=1, max_queue=8, max_queue_tokens=100)
    body = {"messages": user(IN_SCOPE), "max_tokens": 50}
    with client_of(app) as client:
        assert error_of(client.post(CHAT, json={**body, "n": 9}), 400)["param"] == "n"
        # Nobody waits: whatever fits a slot is taken.
        assert client.post(CHAT, json=body).status_code == 200
        backend: Any = loaded_of(app).engine._backend
        backend.step = list
        backend.submit(Ask((1,) * 80))
        refused = client.post(CHAT, json=body)
        assert "81 of 100 tokens" in error_of(refused, 429)["message"]


def test_a_refusal_waits_for_no_slot() -> None:
    """The only slot is taken for as long as a request that cannot be allowed to end runs."""
    app = recorded_app(
        n_slots=1, looks=("prompt",), scores=lambda ask, look: 9.0 * (ask.prompt[0] == ord("z"))
    )
    with client_of(app) as client, ThreadPoolExecutor(1) as pool:
        backend: Any = loaded_of(app).engine._backend
        go = threading.Event()
        emit = backend._emit

        def endless(run: Any, *, refused: bool) -> None:
            emit(run, refused=refused)
            if run.ask.max_tokens == 400 and not go.is_set():
                run.generated.clear()

        backend._emit = endless
        body = {"messages": user(IN_SCOPE), "max_tokens": 400, "ignore_eos": True}
        running = pool.submit(client.post, CHAT, json=body)
        while not backend.capacity().n_running:
            pass
        refused = client.post(CHAT, json={"messages": user(OUT_OF_SCOPE)}).json()
        assert refused["choices"][0]["finish_reason"] == "content_filter"
        assert refused["usage"]["completion_tokens"] == 0
        several = client.post(CHAT, json={"messages": user(OUT_OF_SCOPE), "n": 3}).json()
        assert [each["finish_reason"] for each in several["choices"]] == ["content_filter"] * 3
        assert backend.capacity().n_running == 1
        go.set()
        assert running.result().status_code == 200
