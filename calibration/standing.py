"""Standing: whether a question stands alone, beside another, or is the turn of a conversation.

What `vary` makes stands beside others on both sides, of what is in scope and of what is not, and
more often on one than on the other. A contrast would take that for a sign, so each way to stand
weighs the same on both sides when it is learned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from calibration import phrases
from calibration.background import FIRST, LAST, TURN
from calibration.questions import VARIATION
from calibration.vary import PAIR

Standing = Literal["alone", "beside", "turn"]

_BY_VARIATION: dict[str, Standing] = {
    **dict.fromkeys((PAIR, FIRST, LAST), "beside"),
    **dict.fromkeys((TURN, *phrases.FOLLOW_UPS), "turn"),
}


def standing(fields: Mapping[str, str]) -> Standing:
    """How a question stands by what was done to it, the first of its variations."""
    return _BY_VARIATION.get(fields.get(VARIATION, "").partition(" ")[0], "alone")


def balanced(
    inside: Sequence[Mapping[str, str]], outside: Sequence[Mapping[str, str]]
) -> tuple[Tensor, Tensor]:
    """What each question of two sides weighs, by its fields: (n,) and (m,), each of sum 1.

    A way to stand has the mean of its shares on the two sides, on both; one that a side lacks
    keeps its questions' weight on the other.
    """
    sides = [[standing(fields) for fields in side] for side in (inside, outside)]
    counts = [Counter(side) for side in sides]
    both = counts[0].keys() & counts[1].keys()
    shares = {
        way: sum(count[way] / count.total() for count in counts) / len(counts) for way in both
    }
    first, second = (
        _weights(side, count, shares) for side, count in zip(sides, counts, strict=True)
    )
    return first, second


def _weights(
    side: Sequence[Standing], count: Counter[Standing], shares: Mapping[Standing, float]
) -> Tensor:
    weights = torch.tensor(
        [shares.get(way, count[way] / len(side)) / count[way] for way in side],
        dtype=torch.float64,
    )
    return (weights / weights.sum()).float()
