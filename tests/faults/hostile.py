"""What a hostile body costs everybody else: `python -m tests.faults.hostile`.

Serves the default model in a process of its own, streams one long answer, asks /health every 10
milliseconds, and sends each body in turn. Prints the slowest /health and the longest time without
a token beside each, and ends with 1 where one is over its bound; a token that waits for a body
which is served waits for its prefill, and has none. Meant for an otherwise idle machine: the
client takes part of a core itself.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.faults.hostile_bodies import BODIES, Body

MAX_HEALTH_SECONDS = 0.1
MAX_TOKEN_SECONDS = 0.25
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@contextmanager
def service(*flags: str) -> Iterator[int]:
    """A service that is ready, on the port yielded."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "app", "--port", str(port), "--log-level", "warning", *flags]
    process = subprocess.Popen(command)
    try:
        while answer_of(port, "GET", "/readyz")[0] != 200:
            assert process.poll() is None, "the service ended"
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait()


def answer_of(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = JSON
) -> tuple[int, bytes]:
    """Status and content; 0 where nobody listens or the connection is cut."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        # Refused by its headers, the answer is there before all of the body is sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (ConnectionError, http.client.HTTPException, OSError):
        return 0, b""
    finally:
        connection.close()


class Beside:
    """What other clients see: `health` answers and `tokens` of a stream, as pairs of the time at
    which each came and the seconds it took.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = threading.Event()
        self.health: list[tuple[float, float]] = []
        self.tokens: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=work) for work in (self._ask_health, self._stream)]

    def __enter__(self) -> Beside:
        for thread in self._threads:
            thread.start()
        while len(self.tokens) < 20:
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def worst(self, since: float) -> tuple[float, float]:
        """The slowest /health and the longest time without a token from then on."""
        return tuple(  # type: ignore[return-value]
            max((took for came, took in seen if came >= since), default=0.0)
            for seen in (list(self.health), list(self.tokens))
        )

    def _ask_health(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        while not self._ended.wait(0.01):
            began = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            now = time.perf_counter()
            self.health.append((now, now - began))
        connection.close()

    def _stream(self) -> None:
        body = {
            "messages": [{"role": "user", "content": "Mia has 4 boxes of 6 pens. How many pens?"}],
            "max_tokens": 1500,
            "ignore_eos": True,
            "stream": True,
        }
        while not self._ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
            connection.request("POST", CHAT, json.dumps(body), JSON)
            response = connection.getresponse()
            came = None
            with suppress(OSError, http.client.HTTPException):
                while not self._ended.is_set() and (line := response.readline()):
                    if line.startswith(b"data: {"):
                        now = time.perf_counter()
                        if came is not None:
                            self.tokens.append((now, now - came))
                        came = now
            connection.close()


def limits(port: int) -> tuple[int, int]:
    """The bytes of a body and of its text that the service says it takes."""
    too_long = b" " * (4 * 2**20 + 1)
    _, refused = answer_of(port, "POST", CHAT, too_long)
    body = int(re.findall(rb"over (\d+) bytes", refused)[0])
    content = json.dumps({"messages": [{"role": "user", "content": "a" * (body - 1000)}]})
    _, refused = answer_of(port, "POST", CHAT, content.encode())
    return body, int(re.findall(rb"at most (\d+)", refused)[0])


def send(port: int, body: Body, path: str) -> int:
    headers, content = body
    return answer_of(port, "POST", path, content, JSON | headers)[0]


def main() -> int:
    """0 where every body keeps within the bounds."""
    over = 0
    with service(*sys.argv[1:]) as port, Beside(port) as beside:
        body, text = limits(port)
        print(f"bodies of {body} bytes, {text} of text; milliseconds, status, bytes, body")
        began = time.perf_counter()
        time.sleep(5)
        health, token = beside.worst(began)
        print(f"health {health * 1e3:6.1f}  token {token * 1e3:6.1f}  nothing hostile")
        for name, make in BODIES.items():
            hostile = make(body, text)
            for path in (CHAT, "/v1/score"):
                time.sleep(0.3)
                began = time.perf_counter()
                status = send(port, hostile, path)
                # What came before the last look is not seen until the next one.
                time.sleep(0.3)
                health, token = beside.worst(began)
                # What is served takes its prefill, as any prompt of that length does.
                waited = 0.0 if status == 200 else token
                ok = health < MAX_HEALTH_SECONDS and waited < MAX_TOKEN_SECONDS and status != 500
                over += not ok
                print(
                    f"health {health * 1e3:6.1f}  token {token * 1e3:6.1f}  {status} "
                    f"{len(hostile[1]):8d}  {name} ({path}){'' if ok else '  OVER'}",
                    flush=True,
                )
    print(f"{over} over their bounds" if over else "all within their bounds")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
