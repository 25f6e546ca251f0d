"""An engine that fails: its clients are told at once, and a dead one is never called ready."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.engine_thread import MOST_FAILED_STEPS, EngineThread
from detector.backend import Step
from tests.app.clients import CHAT, IN_SCOPE, SECRET, client_of, error_of, loaded_of, user
from tests.app.recorded import RESPONSE, recorded_app

ASKED = {"messages": user(IN_SCOPE)}
SOON = 0.05
"""Seconds after which a step is taken for one that hangs."""


class Service:
    """A client of an application whose backend can be made to fail."""

    def __init__(self, client: TestClient, engine: EngineThread, died: threading.Event) -> None:
        self.client = client
        self.engine: Any = engine
        self.backend: Any = engine._backend
        self.died = died
        self.released = threading.Event()

    def ask(self, **body: Any) -> Any:
        return self.client.post(CHAT, json=ASKED | body)

    def hang(self) -> list[Step]:
        """Until the test is over."""
        self.released.wait()
        return []

    def assert_dead(self) -> None:
        assert self.died.wait(timeout=60)
        for path in ("/readyz", "/v1/models"):
            assert error_of(self.client.get(path), 503)["code"] == "not_ready"
        refused = self.ask()
        assert "the engine is dead" in error_of(refused, 503)["message"]
        assert refused.headers["retry-after"] == "1"
        error_of(self.client.post("/v1/score", json=ASKED), 503)
        assert self.client.get("/health").status_code == 200
        assert "\ntrajguard_ready 0.0" in self.client.get("/metrics").text


@contextmanager
def service(**settings: Any) -> Iterator[Service]:
    died = threading.Event()
    app = recorded_app(engine_died=died.set, **settings)
    with client_of(app) as client:
        made = Service(client, loaded_of(app).engine, died)
        try:
            yield made
        finally:
            made.released.set()


def fails(error: BaseException) -> Any:
    def fail(*args: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("fault", [SystemExit, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_that_is_no_ordinary_one_ends_the_service(
    fault: type[BaseException], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with service() as served:
        assert "\ntrajguard_ready 1.0" in served.client.get("/metrics").text
        served.backend.step = fails(fault(SECRET))
        assert error_of(served.ask(stream=stream), 500)["code"] == "engine_error"
        served.assert_dead()
    assert fault.__name__ in caplog.text
    assert SECRET not in caplog.text


def test_clients_are_told_before_the_reset_and_a_reset_that_fails_ends_the_service() -> None:
    with service() as served:
        told = threading.Event()

        def abandon() -> None:
            assert told.wait(timeout=60)
            raise RuntimeError(SECRET)

        served.backend.step = fails(RuntimeError(SECRET))
        served.backend.abandon = abandon
        error_of(served.ask(), 500)
        told.set()
        served.assert_dead()


def test_step_after_step_that_fails_ends_the_service() -> None:
    with service() as served:
        step, served.backend.step = served.backend.step, fails(RuntimeError(SECRET))
        for _ in range(MOST_FAILED_STEPS - 1):
            error_of(served.ask(), 500)
        served.backend.step = step
        assert served.ask().status_code == 200
        served.backend.step = fails(RuntimeError(SECRET))
        for _ in range(MOST_FAILED_STEPS - 1):
            error_of(served.ask(), 500)
            assert served.client.get("/readyz").status_code == 200
        error_of(served.ask(), 500)
        served.assert_dead()


@pytest.mark.parametrize("where", ["step", "abandon"])
def test_a_step_that_hangs_ends_the_service(where: str) -> None:
    with service(step_timeout_seconds=SOON) as served:
        if where == "abandon":
            served.backend.step = fails(RuntimeError(SECRET))
        setattr(served.backend, where, served.hang)
        error_of(served.ask(), 500)
        served.assert_dead()


def test_a_hang_in_mid_stream_is_an_event_without_done() -> None:
    with service(step_timeout_seconds=SOON) as served:
        step, calls = served.backend.step, iter(range(9))
        served.backend.step = lambda: step() if next(calls) < 3 else served.hang()
        streamed = served.ask(stream=True)
        assert streamed.status_code == 200
        assert f'"content":"{RESPONSE[0]}"' in streamed.text
        assert '"code":"engine_error"' in streamed.text
        assert "[DONE]" not in streamed.text
        served.assert_dead()


def test_every_open_client_is_told(caplog: pytest.LogCaptureFixture) -> None:
    n = 6
    with service(n_slots=2) as served, ThreadPoolExecutor(n) as pool:

        def step() -> list[Step]:
            if served.backend.capacity().n_waiting < n:
                return []
            raise SystemExit

        served.backend.step = step
        for answer in pool.map(lambda index: served.ask(stream=index % 2 == 0), range(n)):
            error_of(answer, 500)
        served.assert_dead()
    assert SECRET not in caplog.text


def test_deadlines_are_kept_while_the_thread_hangs() -> None:
    with service() as served:
        step, served.backend.step = served.backend.step, served.hang
        error = error_of(served.ask(trajguard={"timeout_seconds": SOON}), 504)
        assert "did not get to its first token in its 0.05 seconds" in error["message"]
        served.backend.step = step
        served.released.set()
        assert served.ask().status_code == 200


def test_what_comes_during_a_reset_is_served_after_it() -> None:
    with service() as served, ThreadPoolExecutor(2) as pool:
        step, abandon = served.backend.step, served.backend.abandon
        resetting, held = threading.Event(), threading.Event()

        def slow() -> None:
            resetting.set()
            assert held.wait(timeout=60)
            served.backend.step = step
            abandon()

        served.backend.step, served.backend.abandon = fails(RuntimeError(SECRET)), slow
        failed = pool.submit(served.ask)
        assert resetting.wait(timeout=60)
        submit = served.engine.submit

        def watched(asks: Any) -> Any:
            steps = submit(asks)
            held.set()
            return steps

        served.engine.submit = watched
        assert served.ask().status_code == 200
        error_of(failed.result(), 500)


def test_a_dead_engine_is_logged_as_critical(caplog: pytest.LogCaptureFixture) -> None:
    with service() as served:
        served.backend.step = fails(SystemExit(SECRET))
        served.ask()
        served.assert_dead()
    (record,) = [each for each in caplog.records if each.levelno == logging.CRITICAL]
    assert "the engine is dead (the engine ended on SystemExit)" in record.getMessage()
