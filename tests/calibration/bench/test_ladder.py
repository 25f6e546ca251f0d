"""The ladder's sets: right answers, and surfaces that give nothing away."""

import re

import pytest

from calibration.bench.paper.ladder import BASES, IMPLIED_BASES, ladder

SETS = ladder(150, seed=0)


def test_seeded_and_distinct() -> None:
    assert ladder(150, seed=0) == SETS
    assert ladder(150, seed=1) != SETS
    for rows in SETS.values():
        assert len({row["question"] for row in rows}) == 150


@pytest.mark.parametrize("base", IMPLIED_BASES)
def test_additions_are_right_in_their_base(base: int) -> None:
    for row in SETS[f"base-{base}-implied"]:
        *examples, query = str(row["question"]).split("\n")
        assert len(examples) == 6
        for example in examples:
            a, b, total = re.findall(r"\w+", example)
            assert int(a, base) + int(b, base) == int(total, base)
        a, b = re.findall(r"\w+", query)
        assert int(a, base) + int(b, base) == int(str(row["answer"]), base)
        assert set(re.sub(r"\W", "", str(row["question"]))) <= set("01234567")


def test_stated_bases_differ_in_one_word_alone() -> None:
    stripped = [
        [re.sub(r"base \w+", "", str(row["question"])) for row in SETS[f"base-{base}-stated"]]
        for base in BASES
    ]
    assert all(questions == stripped[0] for questions in stripped)


def test_implied_examples_carry_half_the_time_in_every_base() -> None:
    for base in IMPLIED_BASES:
        for row in SETS[f"base-{base}-implied"]:
            examples = re.findall(r"(\d\d) \+ (\d\d) = \d", str(row["question"]))
            assert sum(int(a[1]) + int(b[1]) >= base for a, b in examples) == 3


def test_procedural_families_are_right() -> None:
    for row in SETS["two-step-large"]:
        expression = str(row["question"]).removeprefix("What is ").rstrip("?")
        assert eval(expression) == row["answer"]
    for row in SETS["slope-small"]:
        x1, y1, x2, y2 = map(int, re.findall(r"\d+", str(row["question"])))
        assert (y2 - y1) == row["answer"] * (x2 - x1)  # type: ignore[operator]
    for row in SETS["linear-large"]:
        a, b, c = map(int, re.findall(r"\d+", str(row["question"])))
        assert a * row["answer"] + b == c  # type: ignore[operator]
