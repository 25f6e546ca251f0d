"""Padding that sounds in scope: what word problems tell, without a question."""

from __future__ import annotations

import random

N_FILLER = 300
"""Words of padding, at least."""

NAMES = "Tom Mia Ben Ana Leo Zoe Sam Eva Max Ida Raj Lin Omar Nora Hugo Vera".split()
_THINGS = "apples pens books marbles stickers rolls cards eggs beads coins shells cups".split()
_FILLER = (
    "{a} has {n} {x}.",
    "{a} buys {n} {x} for ${m} each.",
    "{a} gives {m} {x} to {b}.",
    "There are {n} {x} in each of {m} boxes.",
    "{a} reads {n} pages a day for {m} days.",
    "{b} has {m} times as many {x} as {a}.",
    "{a} puts {n} {x} in a bag and takes {m} out again.",
    "A shop sells {n} {x} in the morning and {m} in the afternoon.",
    "{a} and {b} share {n} {x} equally.",
    "Each of the {m} children gets {n} {x}.",
)


def filler(draw: random.Random) -> str:
    """At least N_FILLER words of what in-scope questions tell, which ask nothing."""
    said: list[str] = []
    n_words = 0
    while n_words < N_FILLER:
        a, b = draw.sample(NAMES, 2)
        numbers = {"n": draw.randint(10, 90), "m": draw.randint(2, 9)}
        said.append(draw.choice(_FILLER).format(a=a, b=b, x=draw.choice(_THINGS), **numbers))
        n_words += len(said[-1].split())
    return " ".join(said)
