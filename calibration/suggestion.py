"""What to collect next, as the counts of a report suggest."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from math import ceil

from calibration.enough import to_collect
from detector.conformal import proportion_interval


def suggestion(
    alpha: float, n_holdout: int, parts: Mapping[str, int], what: str = "questions"
) -> str | None:
    """One line, or None when there is nothing to say.

    `parts` maps each part of the questions that a report tells apart, such as "group 'short'",
    to its number of holdout questions. They are enough when a realised rate of alpha would have
    a 95 % interval below twice alpha. The smallest part is named; all, where that one is enough,
    which may be `what` instead.
    """
    enough = _enough(alpha)
    name = min(parts, key=lambda part: parts[part], default=None)
    if name is not None and parts[name] < enough:
        what = "questions"
        n, whose, more = (
            parts[name],
            f"the {parts[name]} holdout questions of {name}",
            f" of {name}",
        )
    elif n_holdout < enough:
        n, whose, more = n_holdout, f"{n_holdout} holdout {what}", ""
    else:
        return None
    return (
        f"collect next: about {to_collect(enough - n, 'holdout')} more {what}{more}, for "
        f"{whose} cannot tell a false-alarm rate of {alpha:.2g} from one of {2 * alpha:.2g}"
    )


def _enough(alpha: float) -> int:
    flagged_of = ((k, ceil(k / alpha)) for k in count(1))
    return next(n for k, n in flagged_of if proportion_interval(k, n)[1] < 2 * alpha)
