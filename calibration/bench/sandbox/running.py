"""Jobs for the sandbox, and what became of each call.

Each job runs in a process of its own (`inside`), which a seccomp filter holds to computing: no
file, socket, process, thread or signal, whoever starts it, root too. Answers come back as JSON
lines on a pipe, of bounded size, and are read as what a stranger wrote.
"""

from __future__ import annotations

import json
import math
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from calibration.bench.sandbox.inside import SYSCALLS
from detector.errors import CalibrationError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

Kind = Literal["answer", "error", "time", "memory", "forbidden", "output", "crash"]
"""How a call ended: with a value; by an exception or without a value; over its time or memory; at
something that it may not ask of the kernel; over the size of answers; by any other signal.
"""

DEEPEST = 32
"""Levels of lists and objects that an answer may have."""

_INSIDE = Path(__file__).with_name("inside.py")
_ENDED: dict[int, Kind] = {
    signal.SIGSYS: "forbidden",
    signal.SIGXCPU: "time",
    # Nothing but the kernel for want of memory: nobody else may, and our own is told apart.
    signal.SIGKILL: "memory",
}


class SandboxUnavailableError(CalibrationError):
    """A machine that cannot hold a program to computing: nothing is run there."""

    code = "sandbox_unavailable"


@dataclass(frozen=True)
class Limits:
    """Of one job: all of its calls together."""

    cpu_s: int = 2
    wall_s: float = 20.0
    memory_mb: int = 256
    output_bytes: int = 256 * 1024


@dataclass(frozen=True)
class Outcome:
    """What became of one call. `detail` is an exception's or a signal's name."""

    kind: Kind
    value: Json = None
    detail: str = ""


def equal(a: Json, b: Json) -> bool:
    """As Python's ==, but that True is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


class Sandbox:
    """Runs functions apart. Raises SandboxUnavailableError where that cannot be done."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        _require_confinement()

    def run(
        self, program: str, function: str, calls: Sequence[Sequence[Json]]
    ) -> tuple[Outcome, ...]:
        """Define `program` and call its `function` with each of `calls`: an outcome a call."""
        return _run(self._limits, program, function, calls)


@cache
def _require_confinement() -> None:
    """Seen, not believed: a filter that a kernel takes and does not keep is found here."""
    if not sys.platform.startswith("linux") or platform.machine() not in SYSCALLS:
        raise SandboxUnavailableError(
            f"programs are run on Linux on {' or '.join(SYSCALLS)} alone, where seccomp confines "
            f"them, and this is {sys.platform} on {platform.machine()}: run it there"
        )
    limits = Limits()
    (reading,) = _run(limits, "def f():\n    return open('/').name", "f", [[]])
    (adding,) = _run(limits, "def f(a, b):\n    return a + b", "f", [[1, 2]])
    if reading.kind != "forbidden" or adding.value != 3:
        raise SandboxUnavailableError(
            f"a program that opens a file ended as {reading.kind!r} and one that adds as "
            f"{adding.kind!r}, where 'forbidden' and 'answer' are right: this kernel does not "
            "confine programs by seccomp; run it on another"
        )


def _run(
    limits: Limits, program: str, function: str, calls: Sequence[Sequence[Json]]
) -> tuple[Outcome, ...]:
    job = {
        "program": program,
        "function": function,
        "calls": calls,
        "cpu_s": limits.cpu_s,
        "memory_mb": limits.memory_mb,
    }
    # -P, -s, -S: nothing is imported from here, a home folder or site-packages. Same hashes in
    # every run: the order of a set is part of what a program answers. A warning would be shown
    # with its line, read from a file.
    process = subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-P", "-s", "-S", "-B", "-W", "ignore", str(_INSIDE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "TZ": "UTC0"},
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    try:
        written, cut = _exchange(process, json.dumps(job).encode(), limits)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
    return _outcomes(written, cut, process.returncode, len(calls))


def _exchange(
    process: subprocess.Popen[bytes], job: bytes, limits: Limits
) -> tuple[bytes, Kind | None]:
    """What it writes until it ends, and over which limit it was cut, if one."""
    assert process.stdin is not None
    assert process.stdout is not None
    deadline = time.monotonic() + limits.wall_s
    for pipe in (process.stdin, process.stdout):
        os.set_blocking(pipe.fileno(), False)
    written = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdin, selectors.EVENT_WRITE)
        ready.register(process.stdout, selectors.EVENT_READ)
        while process.stdout in ready.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return bytes(written), "time"
            for key, _ in ready.select(left):
                if key.fileobj is process.stdin:
                    job = _send(process.stdin.fileno(), job)
                    if not job:
                        ready.unregister(process.stdin)
                        process.stdin.close()
                    continue
                found = os.read(process.stdout.fileno(), 65536)
                if not found:
                    ready.unregister(process.stdout)
                written += found
                if len(written) > limits.output_bytes:
                    return bytes(written[: limits.output_bytes]), "output"
    # Only the filter's own calls are left to it, and so it cannot close the pipe and live on.
    process.wait()
    return bytes(written), None


def _send(pipe: int, job: bytes) -> bytes:
    """What is left to send: nothing to one that has ended."""
    try:
        return job[os.write(pipe, job) :]
    except BrokenPipeError:
        return b""


def _outcomes(written: bytes, cut: Kind | None, status: int, n_calls: int) -> tuple[Outcome, ...]:
    first, _, rest = written.partition(b"\n")
    if first != b'{"ready": true}':
        said = first.decode("utf-8", "replace")[:200] or f"it ended with {status}"
        if cut == "time":
            said = "it did not start in time"
        raise SandboxUnavailableError(
            f"the sandbox could not shut its door ({said}): nothing was run; a kernel with seccomp "
            "filters and a plain Python of the running version are needed"
        )
    lines = rest.split(b"\n")
    # What stands after the last line end was cut in the middle.
    found = [_outcome(line) for line in lines[:-1]]
    if len(found) > n_calls:
        return (Outcome(cut or "error", detail="more answers than calls"),) * n_calls
    if cut is not None:
        missing = Outcome(cut)
    elif status < 0:
        name = signal.Signals(-status).name
        missing = Outcome(_ENDED.get(-status, "crash"), detail=name)
    else:
        missing = Outcome("error", detail="ended without an answer")
    return (*found, *[missing] * (n_calls - len(found)))


def _outcome(line: bytes) -> Outcome:
    """One line, by whoever it was written. Numbers that JSON has no sign for are no answer."""
    try:
        said = json.loads(line, parse_constant=_no_number, parse_float=_finite)
        _require_shallow(said, DEEPEST)
    except (ValueError, RecursionError):
        return Outcome("error", detail="no JSON")
    if isinstance(said, dict) and len(said) == 1:
        ((kind, value),) = said.items()
        if kind == "value":
            return Outcome("answer", cast(Json, value))
        if kind == "memory":
            return Outcome("memory")
        if kind == "error" and isinstance(value, str):
            return Outcome("error", detail=value[:100])
    return Outcome("error", detail="no answer")


def _require_shallow(value: Any, left: int) -> None:
    """Who compares or prints an answer goes down as many calls as it has levels."""
    if left < 0:
        raise ValueError
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            _require_shallow(each, left - 1)


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value
