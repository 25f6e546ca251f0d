"""Seeded grade-school word problems, so that calibration runs without any data set.

One to three steps of addition, subtraction, multiplication or division with small whole
numbers, over varied people, things and sentence forms. The wording is our own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from detector.atomic import write_atomically

_PEOPLE = (
    "Amara Ben Chen Dalia Emil Farah Goran Hana Ivo Jun Kofi Lena Mateo Nadia Omar Priya "
    "Quinn Rosa Sami Tove Uma Viktor Wanda Ximena Yusuf Zoe"
).split()
_THINGS = (
    "apples marbles stickers pencils shells coins cookies cards buttons books flowers "
    "balloons beads tickets eggs oranges stamps candles crayons plums"
).split()
_BOXES = ("boxes bags jars baskets trays drawers packs shelves").split()
_PLACES = ("shop market fair school library garden beach party").split()

Problem = tuple[str, int]


def _gain(draw: random.Random) -> Problem:
    person, friend = draw.sample(_PEOPLE, 2)
    thing = draw.choice(_THINGS)
    a, b = draw.randint(3, 90), draw.randint(2, 60)
    return draw.choice(
        [
            f"{person} had {a} {thing}. {friend} gave {person} {b} more. "
            f"How many {thing} does {person} have now?",
            f"There are {a} {thing} on a table and {person} puts {b} more beside them. "
            f"How many {thing} are there altogether?",
            f"{person} found {a} {thing} in the morning and {b} {thing} in the afternoon. "
            f"How many {thing} did {person} find in all?",
        ]
    ), a + b


def _loss(draw: random.Random) -> Problem:
    person, friend = draw.sample(_PEOPLE, 2)
    thing = draw.choice(_THINGS)
    a = draw.randint(10, 99)
    b = draw.randint(2, a - 1)
    return draw.choice(
        [
            f"{person} bought {a} {thing} and gave {b} of them to {friend}. "
            f"How many {thing} are left?",
            f"{person} has {a} {thing}. {friend} has {b} fewer. "
            f"How many {thing} does {friend} have?",
            f"A {draw.choice(_PLACES)} had {a} {thing}. By the evening {b} were gone. "
            f"How many {thing} remained?",
        ]
    ), a - b


def _groups(draw: random.Random) -> Problem:
    person = draw.choice(_PEOPLE)
    thing, box = draw.choice(_THINGS), draw.choice(_BOXES)
    a, b = draw.randint(2, 12), draw.randint(2, 15)
    return draw.choice(
        [
            f"{person} has {a} {box} with {b} {thing} in each. "
            f"How many {thing} does {person} have?",
            f"Each of {a} children brings {b} {thing} to the {draw.choice(_PLACES)}. "
            f"How many {thing} do they bring together?",
            f"A pack holds {b} {thing} and costs ${a}. {person} pays for {b} packs. "
            f"How many dollars does {person} pay?",
        ]
    ), a * b


def _sharing(draw: random.Random) -> Problem:
    person = draw.choice(_PEOPLE)
    thing, box = draw.choice(_THINGS), draw.choice(_BOXES)
    a, b = draw.randint(2, 12), draw.randint(2, 12)
    return draw.choice(
        [
            f"{person} shares {a * b} {thing} equally among {a} friends. "
            f"How many {thing} does each friend get?",
            f"{a * b} {thing} have to go into {box} of {a}. How many {box} are needed?",
        ]
    ), b


def _groups_and_change(draw: random.Random) -> Problem:
    person, friend = draw.sample(_PEOPLE, 2)
    thing, box = draw.choice(_THINGS), draw.choice(_BOXES)
    a, b = draw.randint(2, 10), draw.randint(3, 12)
    c = draw.randint(1, a * b - 1)
    if draw.random() < 0.5:
        return (
            f"{person} fills {a} {box} with {b} {thing} each and then gives {friend} {c} {thing}. "
            f"How many {thing} does {person} still have?"
        ), a * b - c
    return (
        f"At the {draw.choice(_PLACES)} {person} buys {a} {box} of {b} {thing}, and {friend} "
        f"brings {c} more. How many {thing} do they have in total?"
    ), a * b + c


def _wages(draw: random.Random) -> Problem:
    person = draw.choice(_PEOPLE)
    rate, hours, days = draw.randint(5, 20), draw.randint(2, 8), draw.randint(2, 6)
    spent = draw.randint(1, rate * hours * days - 1)
    return (
        f"{person} earns ${rate} an hour and works {hours} hours a day for {days} days. "
        f"After spending ${spent}, how many dollars does {person} have left?"
    ), rate * hours * days - spent


def _two_days(draw: random.Random) -> Problem:
    person = draw.choice(_PEOPLE)
    a, factor = draw.randint(4, 40), draw.choice([2, 3])
    word = {2: "twice", 3: "three times"}[factor]
    thing = draw.choice(_THINGS)
    return (
        f"On Monday {person} sold {a} {thing}. On Tuesday {person} sold {word} as many as on "
        f"Monday. How many {thing} did {person} sell on both days together?"
    ), a * (1 + factor)


_FORMS: tuple[Callable[[random.Random], Problem], ...] = (
    _gain,
    _loss,
    _groups,
    _sharing,
    _groups_and_change,
    _wages,
    _two_days,
)


def word_problem(draw: random.Random) -> Problem:
    """One problem of any form."""
    return draw.choice(_FORMS)(draw)


def generate(n: int, seed: int) -> list[Problem]:
    """`n` distinct problems with their answers; the same for the same seed."""
    draw = random.Random(seed)  # noqa: S311 (reproducible, not secret)
    problems: dict[str, int] = {}
    while len(problems) < n:
        question, answer = word_problem(draw)
        problems.setdefault(question, answer)
    return list(problems.items())


def write_questions(path: Path, n: int, seed: int) -> None:
    """Write generated problems as a questions file, atomically."""
    rows = [
        json.dumps({"id": index, "question": question, "answer": answer})
        for index, (question, answer) in enumerate(generate(n, seed))
    ]
    write_atomically(path, ("\n".join(rows) + "\n").encode())
