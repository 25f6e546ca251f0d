"""Seeded problems of kinds that the benchmark sets of word problems lack, by topic.

Every kind makes (question, answer) from a random draw; the wording is our own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from calibration.generate import word_problem, write_questions
from calibration.kinds import (
    amounts,
    arithmetic,
    calculation,
    counting,
    data,
    measures,
    money,
    numbers,
    pace,
    parts,
    rates,
    stories,
    textbook,
    times,
    trade,
)
from calibration.kinds.wording import Kind, Problem, as_pupils_ask
from detector.atomic import write_atomically
from detector.errors import CalibrationError

__all__ = ["KINDS", "WORD_PROBLEMS", "Problem", "generate_kind", "write_kinds"]

WORD_PROBLEMS = "word-problems"
_PATIENCE = 1000

_NEW: dict[str, Kind] = {
    "arithmetic": arithmetic.two_terms,
    "chains": arithmetic.chains,
    "big-numbers": arithmetic.big_numbers,
    "fraction-arithmetic": calculation.fractions,
    "percent-arithmetic": calculation.percents,
    "powers": calculation.powers,
    "calculator-keys": calculation.calculator_keys,
    "rounding": numbers.rounding,
    "digits": numbers.digits,
    "factors": numbers.factors,
    "ordering": numbers.ordering,
    "missing-numbers": numbers.missing_numbers,
    "object-counting": counting.object_counting,
    "fractions": parts.fractions,
    "percent": parts.percent,
    "discount-and-tax": trade.discount_and_tax,
    "interest": trade.interest,
    "ratio": rates.ratio,
    "unit-price": rates.unit_price,
    "averages": rates.averages,
    "speed": pace.speed,
    "work": pace.work,
    "unit-conversion": measures.conversion,
    "flat-shapes": measures.flat_shapes,
    "solids": measures.solids,
    "durations": times.durations,
    "calendar": times.calendar,
    "ages": times.ages,
    "change": money.change,
    "cents": money.cents,
    "two-prices": money.two_prices,
    "textbook": textbook.textbook,
    "sharing": amounts.sharing,
    "comparing": amounts.comparing,
    "large-numbers": amounts.large_numbers,
    "patterns": data.patterns,
    "tables": data.tables,
    "probability": data.probability,
    "keeping-count": stories.keeping_count,
    "plans": stories.plans,
}


def _word_problem(draw: random.Random) -> Problem:
    question, answer = word_problem(draw)
    return question, str(answer)


KINDS: Mapping[str, Kind] = {
    WORD_PROBLEMS: _word_problem,
    **{name: as_pupils_ask(kind) for name, kind in _NEW.items()},
}


def generate_kind(name: str, n: int, seed: int) -> list[dict[str, str]]:
    """`n` distinct rows of question, answer and kind; the same for the same seed.

    Raises CalibrationError for an unknown kind, or one with fewer distinct problems.
    """
    if name not in KINDS:
        raise CalibrationError(
            f"kind {name!r} is unknown: use one of {', '.join(KINDS)}", param="kinds"
        )
    # The word problems are those of `generate`; other kinds draw apart from one another.
    own = seed if name == WORD_PROBLEMS else f"{name} {seed}"
    draw = random.Random(own)  # noqa: S311 (reproducible, not secret)
    problems: dict[str, str] = {}
    misses = 0
    while len(problems) < n and misses < _PATIENCE:
        question, answer = KINDS[name](draw)
        misses = misses + 1 if question in problems else 0
        problems.setdefault(question, answer)
    if len(problems) < n:
        raise CalibrationError(
            f"kind {name!r} has about {len(problems)} distinct problems, not {n}: ask for fewer",
            param="n",
        )
    return [{"question": q, "answer": a, "kind": name} for q, a in problems.items()]


def write_kinds(path: Path, names: Sequence[str], n: int, seed: int) -> None:
    """Write `n` problems of these kinds, in turn, as a questions file, atomically.

    Word problems alone are written as `generate.write_questions` does. Raises as `generate_kind`.
    """
    names = list(dict.fromkeys(names))
    if names == [WORD_PROBLEMS]:
        write_questions(path, n, seed)
        return
    shares = [(n + len(names) - 1 - index) // len(names) for index in range(len(names))]
    by_kind = [generate_kind(name, share, seed) for name, share in zip(names, shares, strict=True)]
    rows = [row for turn in zip_longest(*by_kind) for row in turn if row is not None]
    lines = [json.dumps({"id": index, **row}) for index, row in enumerate(rows)]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
