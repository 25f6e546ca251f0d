"""Answers: what a file says is right, and the number that a response arrives at."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?")
_MARKED = re.compile(r"####\s*(.+)$")


def answer_text(answer: Any) -> str:
    """An answer as a response would give it: a whole number without its `.0`."""
    if isinstance(answer, float) and answer.is_integer():
        return str(int(answer))
    return str(answer).strip()


def parse_number(text: str) -> Fraction | None:
    """The number that a text ends on, or None.

    A text with `#### N` means N; otherwise the last number in it is meant. Thousands
    separators, decimals and simple fractions are understood, so that 1,200.0, 1200 and
    2400/2 are equal.
    """
    marked = _MARKED.search(text.strip())
    found = _NUMBER.findall(marked[1] if marked else text)
    if not found:
        return None
    try:
        return Fraction(re.sub(r"[,\s]", "", found[-1]))
    except (ValueError, ZeroDivisionError):
        return None


def is_correct(response: str, answer: Any) -> bool | None:
    """Whether a response ends on the right number; None when the answer is no number."""
    right = parse_number(answer_text(answer))
    return None if right is None else parse_number(response) == right
