"""The ladder: question sets whose surface is alike by construction and whose procedure differs.

Two-digit additions in base 8, 9, 10, 11 and 16 over the digits 0 to 7, the base stated in
words or implied by worked examples alone (after the arithmetic tasks of arXiv 2408.00114), and
three procedural families, each with smaller and with larger numbers (after the procedures
that arXiv 2411.12580 finds reasoning to follow). One questions file a set, seeded. The families
of programs (`calibration.bench.paper.programs`) are further sets.

In an implied set the examples' sums, too, are written in the digits 0 to 7, and half of them
carry. Base 16 cannot be implied so: two such digits never carry there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from calibration.bench.paper.programs.sets import Row, program_sets
from detector.atomic import write_atomically

BASES = (8, 9, 10, 11, 16)
IMPLIED_BASES = (8, 9, 10, 11)
_WORDS = {8: "eight", 9: "nine", 10: "ten", 11: "eleven", 16: "sixteen"}
_N_EXAMPLES = 6


def _digits(value: int, base: int) -> str:
    shown = ""
    while True:
        value, digit = divmod(value, base)
        shown = "0123456789ABCDEF"[digit] + shown
        if not value:
            return shown


def _operands(draw: random.Random) -> tuple[str, str]:
    """Two two-digit numbers over the digits 0 to 7."""
    return tuple(f"{draw.randint(1, 7)}{draw.randint(0, 7)}" for _ in range(2))  # type: ignore[return-value]


def _sum(a: str, b: str, base: int) -> str:
    return _digits(int(a, base) + int(b, base), base)


def _example(draw: random.Random, base: int, *, carry: bool) -> str:
    """A worked addition whose sum is over the digits 0 to 7, and carries if asked to."""
    while True:
        a, b = _operands(draw)
        total = _sum(a, b, base)
        carries = int(a[1], 16) + int(b[1], 16) >= base
        if set(total) <= set("01234567") and carries == carry:
            return f"{a} + {b} = {total}"


def stated(draw: random.Random, base: int) -> Row:
    a, b = _operands(draw)
    question = f"Numbers are written in base {_WORDS[base]}. What is {a} + {b}?"
    return {"question": question, "answer": _sum(a, b, base)}


def implied(draw: random.Random, base: int) -> Row:
    examples = [_example(draw, base, carry=n % 2 == 0) for n in range(_N_EXAMPLES)]
    a, b = _operands(draw)
    question = "\n".join([*examples, f"{a} + {b} = ?"])
    return {"question": question, "answer": _sum(a, b, base)}


def _two_step(draw: random.Random, low: int, high: int) -> Row:
    a, b, c = (draw.randint(low, high) for _ in range(3))
    if draw.random() < 0.5:
        return {"question": f"What is {a} * {b} + {c}?", "answer": a * b + c}
    return {"question": f"What is ({a} + {b}) * {c}?", "answer": (a + b) * c}


def _slope(draw: random.Random, low: int, high: int) -> Row:
    x, y, run, slope = (draw.randint(low, high) for _ in range(4))
    question = (
        f"What is the slope of the line through ({x}, {y}) and ({x + run}, {y + slope * run})?"
    )
    return {"question": question, "answer": slope}


def _linear(draw: random.Random, low: int, high: int) -> Row:
    a, x, b = (draw.randint(low, high) for _ in range(3))
    return {"question": f"Solve {a}x + {b} = {a * x + b} for x.", "answer": x}


_FAMILIES: dict[str, Callable[..., Row]] = {
    "two-step": _two_step,
    "slope": _slope,
    "linear": _linear,
}
_RANGES = {"small": (2, 19), "large": (21, 99)}


def ladder(n: int, seed: int) -> dict[str, list[Row]]:
    """`n` distinct rows a set, by set name; the same for the same seed."""
    makers: dict[str, Callable[[random.Random], Row]] = {}
    for base in BASES:
        makers[f"base-{base}-stated"] = partial(stated, base=base)
        if base in IMPLIED_BASES:
            makers[f"base-{base}-implied"] = partial(implied, base=base)
    for family, make in _FAMILIES.items():
        for size, (low, high) in _RANGES.items():
            makers[f"{family}-{size}"] = partial(make, low=low, high=high)
    sets = {}
    for name, maker in makers.items():
        # The same numbers in every base: where a set differs, its procedure does.
        draw = random.Random(seed)  # noqa: S311 (reproducible, not secret)
        rows: dict[object, Row] = {}
        while len(rows) < n:
            row = maker(draw)
            rows.setdefault(row["question"], row)
        sets[name] = list(rows.values())
    return sets


def write_ladder(folder: Path, n: int, seed: int, *, programs: bool = False) -> list[Path]:
    """Write each set as a questions file; with `programs` those of `program_sets` too.

    Raises SandboxUnavailableError where programs are asked for and cannot be run apart.
    """
    sets = ladder(n, seed)
    if programs:
        sets |= program_sets(n, seed)
    paths = []
    for name, rows in sets.items():
        path = folder / f"{name}.jsonl"
        lines = [json.dumps({"id": number, **row}) for number, row in enumerate(rows)]
        write_atomically(path, ("\n".join(lines) + "\n").encode())
        paths.append(path)
    return paths
