"""The filter, run rule by rule: what it lets through on either machine, by number."""

from __future__ import annotations

import pytest

from calibration.bench.sandbox.inside import (
    ALLOW,
    ARCHITECTURES,
    KILL,
    REFUSE,
    SYSCALLS,
    Instruction,
    filter_program,
)

PID = 4321


def verdict(
    program: list[Instruction], number: int, arguments: tuple[int, ...], architecture: int
) -> int:
    """What classic BPF comes to on `struct seccomp_data`, low words first."""
    words = {0: number, 4: architecture}
    for place, argument in enumerate(arguments):
        words[16 + 8 * place] = argument & 0xFFFFFFFF
    at, held = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            held = words[value]
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", SYSCALLS)
def test_only_what_is_listed_passes_and_to_the_compiler_a_no(machine: str) -> None:
    program = filter_program(machine, PID, compiling=False)
    compiling = filter_program(machine, PID, compiling=True)
    names = {number: name for name, number in SYSCALLS[machine].items()}
    always = {"munmap", "mremap", "brk", "clock_gettime", "gettimeofday", "getrandom"}
    always |= {"getpid", "gettid", "exit", "exit_group"}
    for number in (*range(1000), *range(0x40000000, 0x40000000 + 1000), 0xFFFFFFFF):
        said = verdict(program, number, (0,) * 6, ARCHITECTURES[machine])
        name = names.get(number)
        expected = ALLOW if name in always else REFUSE if name == "rt_sigprocmask" else KILL
        assert said == expected, (number, name)
        while_compiling = verdict(compiling, number, (22,) * 6, ARCHITECTURES[machine])
        if name in ("openat", "prctl"):
            assert while_compiling == (REFUSE if name == "openat" else ALLOW)
        elif name != "tgkill":
            assert (while_compiling == ALLOW) == (said == ALLOW), (number, name)
        assert verdict(program, number, (0,) * 6, 0x40000003) == KILL


@pytest.mark.parametrize("machine", SYSCALLS)
@pytest.mark.parametrize(
    ("name", "arguments", "passes"),
    [
        ("write", (1,), True),
        ("write", (2,), True),
        ("write", (0,), False),
        ("write", (3,), False),
        ("mmap", (0, 4096, 3, 0x22), True),
        ("mmap", (0, 4096, 7, 0x22), False),
        ("mmap", (0, 4096, 4, 0x22), False),
        ("mmap", (0, 4096, 3, 0x02), False),
        ("tgkill", (PID, PID, 6), True),
        ("tgkill", (PID, PID, 9), False),
        ("tgkill", (1, 1, 6), False),
    ],
)
def test_arguments_are_looked_at(
    machine: str, name: str, arguments: tuple[int, ...], passes: bool
) -> None:
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    number = SYSCALLS[machine][name]
    said = verdict(
        filter_program(machine, PID, compiling=False), number, padded, ARCHITECTURES[machine]
    )
    assert said == (ALLOW if passes else KILL)
