"""What runs inside the sandbox: its own program, started afresh for each job.

It reads the job, gives up all that a computation does not need, and only then compiles what the
model wrote. What it may still ask of the kernel is in `allowed`; any other system call ends it.
The standard library alone, from a plain interpreter: nothing of TrajGuard is loaded here.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import errno
import importlib
import io
import json
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any

MODULES = (
    "bisect calendar cmath codecs collections collections.abc copy dataclasses datetime decimal "
    "enum fractions functools heapq itertools json math numbers operator random re statistics "
    "string textwrap time typing _strptime encodings.ascii encodings.latin_1 encodings.rot_13"
).split()
"""What a program may import: loaded before the door is shut, as no file can be read after."""

SYSCALLS = {
    "x86_64": {
        "write": 1,
        "mmap": 9,
        "munmap": 11,
        "brk": 12,
        "rt_sigprocmask": 14,
        "mremap": 25,
        "getpid": 39,
        "exit": 60,
        "prctl": 157,
        "gettimeofday": 96,
        "gettid": 186,
        "clock_gettime": 228,
        "exit_group": 231,
        "tgkill": 234,
        "openat": 257,
        "getrandom": 318,
    },
    "aarch64": {
        "openat": 56,
        "write": 64,
        "exit": 93,
        "exit_group": 94,
        "clock_gettime": 113,
        "tgkill": 131,
        "rt_sigprocmask": 135,
        "prctl": 167,
        "gettimeofday": 169,
        "getpid": 172,
        "gettid": 178,
        "brk": 214,
        "munmap": 215,
        "mremap": 216,
        "mmap": 222,
        "getrandom": 278,
    },
}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Linux's names of them, AUDIT_ARCH_..."""

KILL, ALLOW = 0x80000000, 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000
_PROT_EXEC, _MAP_ANONYMOUS = 4, 0x20
_PDEATHSIG, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVS = 1, 4, 22, 38
_NOBODY = 65534

Instruction = tuple[int, int, int, int]
Check = tuple[int, int, int, bool]
"""Which argument, how it is compared, with what, and whether that must be so."""


class _Nowhere(io.StringIO):
    """What a program prints is no answer, and is not kept."""

    def write(self, text: str) -> int:
        return len(text)


def allowed(pid: int) -> dict[str, list[list[Check]]]:
    """System calls that a computation needs, each with the argument checks of which one list
    must hold; none: always. Memory that is nobody's file and cannot be executed, answers to the
    pipe, clocks, random bytes, an end, and abort() of itself alone.
    """
    return {
        "write": [[(0, _EQUAL, 1, True)], [(0, _EQUAL, 2, True)]],
        "mmap": [[(2, _ANY_BIT, _PROT_EXEC, False), (3, _ANY_BIT, _MAP_ANONYMOUS, True)]],
        "tgkill": [[(0, _EQUAL, pid, True), (2, _EQUAL, signal.SIGABRT, True)]],
        "munmap": [],
        "mremap": [],
        "brk": [],
        "clock_gettime": [],
        "gettimeofday": [],
        "getrandom": [],
        "getpid": [],
        "gettid": [],
        "exit": [],
        "exit_group": [],
    }


def filter_program(machine: str, pid: int, *, compiling: bool) -> list[Instruction]:
    """The rules of `allowed` as the kernel takes them: classic BPF over `struct seccomp_data`.

    While the program is compiled, and nothing of it runs, the compiler may ask for the file of
    a line that it cannot parse, and is told no; and the filter may be changed for the last one.
    """
    numbers = SYSCALLS[machine]
    rules = allowed(pid)
    refused = ["rt_sigprocmask"]
    if compiling:
        refused.append("openat")
        rules["prctl"] = [[(0, _EQUAL, _SECCOMP, True)]]
    made: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, KILL),
    ]
    # abort() unblocks its signal first, and goes on when it may not. Nothing may block one.
    for name in refused:
        made += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, REFUSE)]
    for name, ways in rules.items():
        block: list[Instruction] = []
        for checks in ways:
            size = 2 * len(checks) + 1
            for place, (argument, how, value, must) in enumerate(checks):
                past = size - 2 * place - 2
                block.append((_LOAD, 0, 0, 16 + 8 * argument))
                block.append((how, *((0, past) if must else (past, 0)), value))
            block.append((_RETURN, 0, 0, ALLOW))
        block.append((_RETURN, 0, 0, KILL if ways else ALLOW))
        made += [(_EQUAL, 0, len(block), numbers[name]), *block]
    return [*made, (_RETURN, 0, 0, KILL)]


def _prctl(option: int, *values: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *(values + (0,) * (4 - len(values)))):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Filter:
    """A filter in memory, ready to be set when no more may be loaded."""

    def __init__(self, *, compiling: bool) -> None:
        rules = filter_program(platform.machine(), os.getpid(), compiling=compiling)
        self._rules = ctypes.create_string_buffer(
            b"".join(struct.pack("HBBI", *rule) for rule in rules)
        )
        self._program = ctypes.create_string_buffer(
            struct.pack("HP", len(rules), ctypes.addressof(self._rules))
        )
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def set(self) -> None:
        """For good: whichever filter forbids more has the word."""
        if self._prctl(_SECCOMP, 2, ctypes.byref(self._program), 0, 0):
            raise OSError(ctypes.get_errno(), "no seccomp filter")


def confine(cpu_s: int, memory_mb: int) -> _Filter:
    """Give up all but computing and compiling, for good, and what to set before computing.

    Raises OSError where the kernel has no such thing.
    """
    if os.geteuid() == 0:
        # A second wall: where there is no such user the filter holds alone.
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
    _prctl(_PDEATHSIG, signal.SIGKILL)
    # No core file, and no debugger of the same user.
    _prctl(_DUMPABLE, 0)
    with open("/proc/self/statm") as statm:  # noqa: PTH123 (pathlib is not loaded here)
        held = int(statm.read().split()[0]) * resource.getpagesize()
    for limit, most in (
        (resource.RLIMIT_AS, held + memory_mb * 2**20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (most, most))
    # SIGXCPU first, so that it can be told from the kernel's want of memory.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    last = _Filter(compiling=False)
    _prctl(_NO_NEW_PRIVS, 1)
    _Filter(compiling=True).set()
    return last


def _say(line: dict[str, Any] | bytes) -> None:
    written = line if isinstance(line, bytes) else json.dumps(line).encode()
    os.write(1, written + b"\n")


def _function(code: CodeType, name: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"__name__": "program", "__builtins__": builtins}
    exec(code, names)  # noqa: S102 (what the sandbox is for)
    found: Callable[..., Any] = names[name]
    return found


def _answer(act: Callable[[], Any]) -> Any:
    """What an act gives, or the line that says what it raised."""
    try:
        return act()
    except MemoryError:
        return {"memory": True}
    except BaseException as error:
        return {"error": type(error).__name__[:100]}


def _call(function: Callable[..., Any], arguments: list[Any]) -> bytes:
    return json.dumps({"value": function(*arguments)}, allow_nan=False).encode()


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    os.close(0)
    for module in MODULES:
        importlib.import_module(module)
    try:
        last = confine(job["cpu_s"], job["memory_mb"])
    except (OSError, KeyError) as error:
        _say({"unavailable": f"{type(error).__name__}: {error}"})
        os._exit(1)
    _say({"ready": True})
    code = _answer(lambda: compile(job["program"], "<program>", "exec"))
    last.set()
    # A module that is not there is a mistake of the program, and not a file that it asked for.
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.stdout = sys.stderr = _Nowhere()
    sys.stdin = io.StringIO()
    found = code
    if isinstance(code, CodeType):
        found = _answer(lambda: _function(code, job["function"]))
    for arguments in job["calls"]:
        _say(found if isinstance(found, dict) else _answer(partial(_call, found, arguments)))
    os._exit(0)


if __name__ == "__main__":
    main()
