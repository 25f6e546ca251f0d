"""What a critique says of an answer."""

from __future__ import annotations

import re

_TOLD = re.compile(
    r"(?P<wrong>\bincorrect|\bwrong\b|(?:\bnot|n't) (?:\w+ )?(?:correct|right)\b|^\W*no\b)"
    r"|(?P<right>\bcorrect\b|\bright\b|^\W*yes\b)",
    re.IGNORECASE,
)


def told(critique: str) -> bool | None:
    """Whether a critique calls the answer right, by the first of its words that says so; None
    where none does.
    """
    found = _TOLD.search(critique)
    return None if found is None else found["right"] is not None
