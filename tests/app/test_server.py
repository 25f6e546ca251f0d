"""The server's life: it drains at a signal, and ends by itself when its engine is dead."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx2
import pytest

from app.loading import Loaded
from app.server import Server
from app.settings import Settings
from detector.backend import Step
from tests.app.clients import CHAT, IN_SCOPE, SECRET, error_of, user
from tests.app.recorded import RESPONSE, recorded_load, recorded_settings

ASKED = {"messages": user(IN_SCOPE)}


class Running:
    """A server on a thread, whose backend stands still after some steps until `go` is set."""

    def __init__(self, n_steps: int, **settings: Any) -> None:
        self.go = threading.Event()
        ready = threading.Event()
        load = recorded_load()

        def gated(settings: Settings) -> Loaded:
            loaded = load(settings)
            self.backend = cast("Any", loaded.engine._backend)
            step, self._n_left = self.backend.step, n_steps

            def stepped() -> list[Step]:
                self._n_left -= 1
                return step() if self._n_left >= 0 or self.go.is_set() else []

            self.backend.step = stepped
            return loaded

        class Told(Server):
            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets)
                await self.app.state.trajguard.loading.ended.wait()
                ready.set()

        self.server = Told(recorded_settings(port=0, **settings), gated)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        assert ready.wait(timeout=60)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def interrupt(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)
        while self.client.get("/readyz").status_code == 200:
            pass


@contextmanager
def running(n_steps: int = 10**6, **settings: Any) -> Iterator[Running]:
    served = Running(n_steps, **settings)
    try:
        yield served
    finally:
        served.go.set()
        served.server.should_exit = True
        served.client.close()
        served.thread.join()


def test_a_signal_stops_admission_and_lets_streams_end() -> None:
    with running(n_steps=3) as served:
        with served.client.stream("POST", CHAT, json={**ASKED, "stream": True}) as stream:
            served.interrupt()
            refused = served.client.post(CHAT, json=ASKED)
            assert "shutting down" in error_of(refused, 503)["message"]
            assert refused.headers["retry-after"] == "1"
            assert served.client.get("/health").status_code == 200
            served.go.set()
            text = stream.read().decode()
        assert text.endswith("data: [DONE]\n\n")
        assert text.count('"content"') > len(RESPONSE)
        served.thread.join()
        assert served.server.exit_status == 0


def test_streams_that_take_longer_are_cut_by_an_error() -> None:
    with running(n_steps=3, drain_seconds=0.05) as served:
        with served.client.stream("POST", CHAT, json={**ASKED, "stream": True}) as stream:
            served.server.handle_exit(signal.SIGTERM, None)
            text = stream.read().decode()
        assert '"code":"not_ready"' in text
        assert "[DONE]" not in text
        served.thread.join()
        assert served.server.exit_status == 0


def test_a_request_that_has_not_begun_when_time_is_up_is_told_by_its_status() -> None:
    with running(n_steps=0, drain_seconds=0.05) as served:
        submitted = threading.Event()
        submit = served.backend.submit

        def watched(*asks: Any) -> None:
            submit(*asks)
            submitted.set()

        served.backend.submit = watched

        def interrupt() -> None:
            submitted.wait()
            served.server.handle_exit(signal.SIGTERM, None)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        error_of(served.client.post(CHAT, json={**ASKED, "stream": True}), 503)
        interrupting.join()


def test_with_nothing_under_way_a_signal_ends_it_at_once() -> None:
    with running(drain_seconds=10**6) as served:
        served.server.handle_exit(signal.SIGINT, None)
        served.thread.join()
        assert served.server.exit_status == 0


def test_a_dead_engine_ends_the_server_with_a_status_that_says_so() -> None:
    with running() as served:

        def fail() -> list[Step]:
            raise SystemExit

        served.backend.step = fail
        error_of(served.client.post(CHAT, json=ASKED), 500)
        served.thread.join()
        assert served.server.exit_status == 1
        assert not served.server.engine_hangs


_PROGRAM = """
import sys, threading
from functools import partial
import app.__main__
from tests.app.recorded import recorded_load

load = recorded_load()

def hanging(settings):
    loaded = load(settings)
    backend, step = loaded.engine._backend, loaded.engine._backend.step
    backend.step = lambda: threading.Event().wait() if backend.capacity().n_running else step()
    return loaded

app.__main__.Server = partial(
    app.__main__.Server, load=hanging if sys.argv[1] == "hanging" else load
)
sys.exit(app.__main__.main(["--port", "0", "--step-timeout-seconds", "0.2"]))
"""


@contextmanager
def process(kind: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, once it is ready, and its address."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _PROGRAM, kind]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as started:
        assert started.stderr is not None
        try:
            address, ready = "", False
            while not (address and ready):
                line = started.stderr.readline()
                assert line, "it ended before it was ready"
                ready = ready or "ready on" in line
                if found := re.search(r"running on (http://\S+)", line):
                    address = found[1]
            yield started, address
        finally:
            started.kill()


def test_a_process_that_is_told_to_stop_exits_with_0() -> None:
    with process("sound") as (started, address):
        assert httpx2.post(address + CHAT, json=ASKED, timeout=60).status_code == 200
        started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=60) == 0


def test_a_process_whose_engine_hangs_exits_with_1() -> None:
    with process("hanging") as (started, address):
        error_of(httpx2.post(address + CHAT, json=ASKED, timeout=60), 500)
        assert started.wait(timeout=60) == 1
        assert started.stderr is not None
        assert "the engine is dead (a step has taken over 0.2 seconds)" in started.stderr.read()


@pytest.mark.parametrize("arguments", [["--workers", "2"], ["--workers=8"]])
def test_several_workers_are_refused_with_the_reason(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from app.__main__ import main

    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"TRAJGUARD_WORKERS is '{arguments[-1][-1]}'" in said
    assert "one process serves one model" in said
    assert SECRET not in said
