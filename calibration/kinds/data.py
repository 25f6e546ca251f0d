"""Patterns, small tables in words, and one draw from a bag."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import Problem, article, listed, plain, plural, spread, story, told
from calibration.kinds.words import CATEGORIES, PEOPLE, PLACES, THINGS

_COLOURS = ("red", "blue", "green", "yellow", "white", "black", "purple", "orange", "pink")
_NEXT = (
    "what comes next: {row}",
    "What comes next? {row}, ...",
    "What is the next number in the pattern {row}, ...?",
    "Find the next number: {row}, ?",
    "Continue the sequence: {row}, __",
    "{row}, ___",
    "Which number follows in {row}?",
    "complete the pattern {row}, ?",
    "The first numbers of a pattern are {row}. What is the next one?",
    "{who} writes {row}. Which number does {who} write next?",
    "Look at these numbers: {row}. What number comes after them?",
    "In the sequence {row}, what is the next term?",
    "Here is a number pattern: {row}. Give the next number.",
    "Guess the next number. {row}",
)
_GAP = (
    "Fill in the missing number: {row}",
    "What number is missing? {row}",
    "{row} - which number goes in the gap?",
    "Find the number that belongs in the blank: {row}.",
    "Complete: {row}",
)
_PERIODS = (
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
    ("January", "February", "March", "April", "May"),
    ("Class 4A", "Class 4B", "Class 5A", "Class 5B", "Class 6A"),
    ("Week 1", "Week 2", "Week 3", "Week 4", "Week 5"),
)


def patterns(draw: random.Random) -> Problem:
    """Sequences that add, multiply, alternate or square."""
    n, a = draw.randint(4, 6), draw.randint(1, 60)
    step, k = draw.choice((draw.randint(1, 15), -draw.randint(1, 9))), draw.choice((2, 3, 4, 5, 10))
    half = Fraction(draw.choice((5, 25, 2, 15)), draw.choice((10, 100)))
    second = draw.randint(1, 9)
    fibonacci = [draw.randint(1, 5), draw.randint(1, 9)]
    while len(fibonacci) <= n:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    start = draw.randint(1, 9)
    sequences: tuple[list[Fraction | int], ...] = (
        [a + i * step for i in range(n + 1)],
        [a + i * step for i in range(n + 1)],
        [start * k**i for i in range(n + 1)],
        [start * 2**n // 2**i * 2 for i in range(n + 1)],
        [start + i * half for i in range(n + 1)],
        [(start + i) ** 2 for i in range(n + 1)],
        [a + (i + 1) // 2 * second + i // 2 * abs(step) for i in range(n + 1)],
        list(fibonacci),
        [a + i * (i + 1) // 2 * second for i in range(n + 1)],
    )
    row = [plain(value) for value in draw.choice(sequences)]
    gap = draw.choice((", ", ", ", ", ", " "))
    if draw.random() < 0.25:
        at = draw.randrange(1, n)
        hole = draw.choice(("__", "?", "___"))
        return draw.choice(_GAP).format(row=gap.join([*row[:at], hole, *row[at + 1 :]])), row[at]
    text = draw.choice(_NEXT).format(row=gap.join(row[:-1]), who=draw.choice(PEOPLE))
    return text, row[-1]


def tables(draw: random.Random) -> Problem:
    """A few rows of numbers, and a question about them."""
    thing, place, who = draw.choice(THINGS), draw.choice(PLACES), draw.choice(PEOPLE)
    n = draw.randint(3, 5)
    names = draw.choice((*_PERIODS, tuple(draw.sample(PEOPLE, 5)), tuple(draw.sample(PEOPLE, 5))))[
        :n
    ]
    counts = draw.sample(range(1, draw.choice((20, 60, 300, 5000))), n)
    manner = draw.randrange(5)
    pairs = list(zip(names, counts, strict=True))
    if manner == 0:
        facts = [f"The table shows the {thing}: " + ", ".join(f"{a}: {b}" for a, b in pairs) + "."]
    elif manner == 1:
        facts = [f"The {place} counted its {thing}.", *(f"{a}: {b}." for a, b in pairs)]
    elif manner == 2:
        facts = [
            f"| | {thing} |\n|---|---|\n" + "\n".join(f"| {a} | {b} |" for a, b in pairs) + "\n"
        ]
    elif manner == 3:
        facts = [
            f"{who} made a list of {thing}: " + listed([f"{b} for {a}" for a, b in pairs]) + "."
        ]
    else:
        facts = [
            "\n".join([f"{thing.capitalize()} at the {place}", *(f"{a} - {b}" for a, b in pairs)])
            + "\n"
        ]
    high, low = max(counts), min(counts)
    first, last = names[0], names[-1]
    asked: tuple[tuple[str, str, str], ...] = (
        ("How many are there in total", "the total", plain(sum(counts))),
        (f"How many {thing} is that altogether", f"the number of all {thing}", plain(sum(counts))),
        ("Which row has the most", "the row with the most", names[counts.index(high)]),
        ("Which one has the smallest number", "the smallest one", names[counts.index(low)]),
        (
            f"What is the difference between {first} and {last}",
            f"the difference between {first} and {last}",
            plain(abs(counts[0] - counts[-1])),
        ),
        (
            "How much larger is the largest than the smallest number",
            "the range",
            plain(high - low),
        ),
        (
            f"What do {first} and {names[1]} have together",
            f"the sum of {first} and {names[1]}",
            plain(counts[0] + counts[1]),
        ),
        ("What is the average", "the mean", plain(Fraction(sum(counts), n))),
        (
            f"What share of the total is {first}, as a fraction",
            f"the fraction of the total that belongs to {first}",
            plain(Fraction(counts[0], sum(counts))),
        ),
    )
    question, find, answer = draw.choice(asked)
    return story(draw, facts, question, find).replace("\n ", "\n").replace(" | |", "\n| |"), answer


def probability(draw: random.Random) -> Problem:
    """One draw from a bag, one die, one spinner, one card."""
    who, thing = draw.choice(PEOPLE), draw.choice(THINGS)
    colour, other, third = draw.sample(_COLOURS, 3)
    a, b, c = (spread(draw, 1, 30) for _ in range(3))
    total = a + b + c
    place = draw.choice(("bag", "box", "jar", "hat", "drawer", "sack"))
    fruit, second = draw.sample(CATEGORIES["fruits"], 2)
    above = draw.randint(1, 5)
    parts = draw.randint(3, 12)
    mine = draw.randint(1, parts - 1)
    return told(
        draw,
        (
            [
                f"A {place} holds {a} {colour} and {b} {other} {thing}.",
                "One is taken without looking.",
            ],
            f"What is the probability that it is {colour}",
            f"the probability that it is {colour}",
            str(Fraction(a, a + b)),
        ),
        (
            [
                f"There are {a} {colour}, {b} {other} and {c} {third} {thing} in a {place}.",
                f"{who} takes one at random.",
            ],
            f"What is the chance of {article(other)} one",
            f"the chance that it is {other}",
            str(Fraction(b, total)),
        ),
        (
            [f"{who} picks one of {a} {colour}, {b} {other} and {c} {third} {thing}."],
            f"What is the probability that it is not {third}",
            f"the probability that it is not {third}",
            str(Fraction(a + b, total)),
        ),
        (
            [f"{who} rolls a fair die once."],
            f"What is the probability of a number greater than {above}",
            f"the probability of more than {above}",
            str(Fraction(6 - above, 6)),
        ),
        (
            [f"A spinner has {parts} equal parts and {mine} of them are {colour}."],
            f"How likely is it to stop on {colour}",
            f"the probability of {colour}",
            str(Fraction(mine, parts)),
        ),
        (
            [f"In a {place} there are cards with the numbers 1 to {total}.", f"{who} draws one."],
            "What is the probability that its number is even",
            "the probability of an even number",
            str(Fraction(total // 2, total)),
        ),
        (
            [
                f"A basket has {a} {plural(fruit)} and {b} {plural(second)}.",
                f"{who} takes one with closed eyes.",
            ],
            f"Is {article(fruit)} or {article(second)} more likely",
            "which fruit is more likely",
            fruit if a > b else second if b > a else "equally likely",
        ),
        (
            [f"{a} of {total} tickets win a prize.", f"{who} buys one ticket."],
            f"What is the probability that {who} wins",
            "the probability of a prize",
            str(Fraction(a, total)),
        ),
    )
