"""The families: right answers, the same inputs in every set, and surfaces that say little."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibration.bench.paper.ladder import ladder, write_ladder
from calibration.bench.paper.programs.families import FAMILIES, N_EXAMPLES, N_HELD_OUT
from calibration.bench.paper.programs.sets import Row, program_sets
from calibration.bench.sandbox.running import Sandbox
from calibration.questions import read_rows

N = 12


@pytest.fixture(scope="module")
def sets() -> dict[str, list[Row]]:
    return program_sets(N, seed=0)


def cases(rows: list[Row]) -> list[tuple[list[Any], Any]]:
    return [case for row in rows for name in ("examples", "held_out") for case in row[name]]  # type: ignore[attr-defined]


def test_seeded_and_distinct(sets: dict[str, list[Row]]) -> None:
    assert program_sets(3, seed=0) == {name: rows[:3] for name, rows in sets.items()}
    assert program_sets(3, seed=1)["order-vso"] != sets["order-vso"][:3]
    for rows in sets.values():
        assert len({row["question"] for row in rows}) == N
    assert len(sets) == sum(len(family.programs) for family in FAMILIES) >= 60


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_sets_of_a_family_differ_in_outputs_alone(family: Any, sets: dict[str, list[Row]]) -> None:
    found = [sets[family.set_name(program)] for program in family.programs]
    inputs = [[given for given, _ in cases(rows)] for rows in found]
    assert all(each == inputs[0] for each in inputs)
    outputs = {str([value for _, value in cases(rows)]) for rows in found}
    assert len(outputs) == len(found)
    for rows in found:
        assert {row["family"] for row in rows} == {family.name}
        for row in rows:
            lines = str(row["question"]).split("\n")
            assert len(lines) == N_EXAMPLES + 1
            assert re.search(r"(->|=)$", lines[-1])
            for line, (_, value) in zip(lines, row["examples"], strict=False):  # type: ignore[call-overload]
                assert line.endswith(f" {value}")
            given = [str(case[0]) for name in ("examples", "held_out") for case in row[name]]  # type: ignore[attr-defined]
            assert len(set(given)) == N_EXAMPLES + N_HELD_OUT
            assert str(row["answer"]) == str(row["held_out"][0][1])  # type: ignore[index]


@pytest.mark.parametrize("base", range(8, 17))
def test_sums_are_right_in_their_base(base: int, sets: dict[str, list[Row]]) -> None:
    for given, total in cases(sets[f"add-base-{base}"]):
        assert sum(int(number, base) for number in given) == int(total, base)
        assert set("".join(given)) <= set("01234567")


NAIVE: dict[str, Callable[..., Any]] = {
    "order-vso": lambda text: "{1} {0} {2}".format(*text.split()),
    "order-ovs": lambda text: "{2} {1} {0}".format(*text.split()),
    "space-swap": lambda x, y: [y, x],
    "space-turn-90": lambda x, y: [y, 8 - x],
    "space-turn-180": lambda x, y: [8 - x, 8 - y],
    "cipher-plain": lambda text: text,
    "cipher-shift-13": lambda text: codecs.encode(text, "rot13"),
    "cipher-shift-3": lambda text: "".join(chr((ord(c) - 97 + 3) % 26 + 97) for c in text),
    "cipher-atbash": lambda text: "".join(chr(219 - ord(c)) for c in text),
    "case-number-digit-sum": lambda n: n // 10 + n % 10,
    "case-number-collatz-steps": lambda n: 0 if n == 1 else 1 + _collatz(n),
    "case-number-next-prime": lambda n: next(p for p in _PRIMES if p > n),
    "case-total-alternating": lambda v: v[0] - v[1] + v[2] - v[3] + v[4],
    "case-total-second-largest": lambda v: max(set(v) - {max(v)}),
    "case-list-swap-pairs": lambda v: [v[1], v[0], v[3], v[2], v[4]],
    "case-list-even-first": lambda v: [n for n in v if not n % 2] + [n for n in v if n % 2],
    "case-text-vowels-first": lambda t: "".join(
        [c for c in t if c in "aeiou"] + [c for c in t if c not in "aeiou"]
    ),
    "case-text-even-places-first": lambda t: t[0] + t[2] + t[4] + t[1] + t[3],
}
_PRIMES: list[int] = [n for n in range(2, 200) if not any(n % m == 0 for m in range(2, n))]


def _collatz(n: int) -> int:
    following = 3 * n + 1 if n % 2 else n // 2
    return 0 if following == 1 else 1 + _collatz(following)


@pytest.mark.parametrize("name", NAIVE)
def test_programs_do_what_they_are_called(name: str, sets: dict[str, list[Row]]) -> None:
    for given, value in cases(sets[name]):
        assert NAIVE[name](*given) == value


def test_a_turn_four_times_is_none() -> None:
    (space,) = (family for family in FAMILIES if family.name == "space")
    program = space.text + "\ndef four(x, y):\n    for _ in range(4): x, y = turn_90(x, y)\n"
    program += "    return [x, y]\ndef back(x, y): return turn_270(*turn_90(x, y))\n"
    for name in ("four", "back"):
        (outcome,) = Sandbox().run(program, name, [[2, 7]])
        assert outcome.value == [2, 7]


def test_the_other_sets_are_the_bytes_that_they_were(tmp_path: Path) -> None:
    paths = write_ladder(tmp_path, 100, 0)
    found = b"".join(path.read_bytes() for path in sorted(paths))
    digest = "07d48bb862464313c4932714dfeea515ed057ce3122bc165d51973c5734130cd"
    assert hashlib.sha256(found).hexdigest() == digest
    assert {path.stem for path in paths} == set(ladder(1, seed=0))


def test_sets_are_questions_files(tmp_path: Path) -> None:
    paths = write_ladder(tmp_path, 2, 0, programs=True)
    assert len(paths) == len(ladder(1, seed=0)) + sum(len(f.programs) for f in FAMILIES)
    for path in paths:
        rows, _ = read_rows(path)
        assert len(rows) == 2
        assert all(row.answer is not None for row in rows)
