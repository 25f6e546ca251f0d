"""What answers come to: their number, exactly, and clusters of those that come to the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

Entails = Callable[[Sequence[tuple[str, str]]], Sequence[bool]]
"""Of pairs of texts: whether the first says what the second says."""

_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-\u2212]?)\$?(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?"
    r"(?P<part>\.\d+)?(?P<below>/\d+)?"
)
_MOST_DIGITS = 40
"""Of a number: a longer row of digits is a model that repeats itself, and is taken as text."""


def number_of(answer: str) -> Fraction | None:
    """The last number that an answer says, exactly: 1,200 is 1200, 0.5 is 1/2; None without one.

    Answers to word problems end with their number, as GSM8K's do.
    """
    last = None
    for found in _NUMBER.finditer(answer):
        whole, part, below = found["whole"], found["part"], found["below"]
        if whole is None and part is None:
            continue
        if len(found[0]) > _MOST_DIGITS:
            last = None
            continue
        number = Fraction((whole or "0").replace(",", "") + (part or ""))
        if below is not None:
            if int(below[1:]) == 0:
                continue
            number /= int(below[1:])
        last = -number if found["sign"] else number
    return last


def clusters_of(answers: Sequence[str], entails: Entails | None = None) -> tuple[int, ...]:
    """The cluster of each answer, numbered as they are met.

    Answers with a number are together where it is the same. Others are where their words are, or,
    where `entails` is given, where each says what the other says: an answer joins the first cluster
    whose first answer does (Kuhn et al., arXiv 2302.09664, algorithm 1). The code of DYNAMICQA
    asks of each pair, and its clusters may overlap; these do not.
    """
    places: dict[object, int] = {}
    texts: dict[int, str] = {}
    clusters: list[int] = []
    for answer in answers:
        number, text = number_of(answer), " ".join(answer.casefold().split())
        key = ("number", number) if number is not None else ("text", text)
        if key not in places:
            same = None if number is not None else _entailed(answer, texts, entails)
            places[key] = len(set(clusters)) if same is None else same
            if number is None and same is None:
                texts[places[key]] = answer
        clusters.append(places[key])
    return tuple(clusters)


def _entailed(answer: str, texts: dict[int, str], entails: Entails | None) -> int | None:
    """The first cluster whose first answer says the same."""
    if entails is None or not texts:
        return None
    there = entails([(answer, text) for text in texts.values()])
    back = entails([(text, answer) for text in texts.values()])
    alike = zip(texts, there, back, strict=True)
    return next((cluster for cluster, one, other in alike if one and other), None)
