"""How many questions are enough for an alpha, in questions as they are collected.

A threshold needs conformal questions, which are a share of all: what `detector.conformal` says of
them is said here of whole questions files.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from scipy.special import bdtr

from calibration.questions import SHARES, Split, split_of
from detector import conformal
from detector.errors import TooFewQuestionsError
from detector.verdict import Guarantee

_MOST = 10**9
_ALPHA_STEPS = 10_000


def keeps(n_conformal: int, alpha: float, guarantee: Guarantee) -> bool:
    """Whether so many conformal questions give a threshold at this alpha."""
    try:
        conformal.rank(n_conformal, alpha, guarantee)
    except TooFewQuestionsError:
        return False
    return True


def conformal_needed(alpha: float, guarantee: Guarantee) -> int:
    """The fewest conformal questions that keep an alpha."""
    return bisect_left(range(_MOST), True, key=lambda n: keeps(n, alpha, guarantee))


def smallest_alpha(n_conformal: int, guarantee: Guarantee) -> float:
    """The smallest alpha kept, rounded up to four decimals; 1 if there is none."""
    steps = range(1, _ALPHA_STEPS)
    kept = bisect_left(
        steps, True, key=lambda step: keeps(n_conformal, step / _ALPHA_STEPS, guarantee)
    )
    return (kept + 1) / _ALPHA_STEPS


def to_collect(n: int, split: Split = "conformal") -> int:
    """How many questions to collect for `n` of them to be in a split, with the confidence of
    every bound, rounded up to two digits; each falls into it by its hash, so that their number
    is binomial.
    """
    if n <= 0:
        return 0
    at_most = 1 - conformal.CONFIDENCE
    # P(Binomial(m, share) < n), which falls as m grows.
    m = n + bisect_left(
        range(n, _MOST), True, key=lambda m: float(bdtr(n - 1, m, SHARES[split])) <= at_most
    )
    unit: int = 10 ** max(0, len(str(m)) - 2)
    return -(-m // unit) * unit


def outlook(keys: Iterable[str], alpha: float) -> str:
    """What `fit` will be able to do with questions of these keys, in a line, beside `alpha`,
    which it takes unless told otherwise.
    """
    splits = [split_of(key) for key in keys]
    n_conformal = splits.count("conformal")
    kept = smallest_alpha(n_conformal, "marginal")
    said = f"{len(splits)} distinct questions; if all are in scope, `fit` can keep "
    said += f"alpha {kept:g} or more" if kept < 1 else "no alpha"
    if missing := max(0, conformal_needed(alpha, "marginal") - n_conformal):
        said += f": alpha {alpha:g} needs about {to_collect(missing)} questions more"
    return said


def too_few(
    alpha: float,
    guarantee: Guarantee,
    n_questions: int,
    n_conformal: int,
    error: TooFewQuestionsError,
) -> TooFewQuestionsError:
    """What `fit` says instead of `error`: in questions to collect, and the alpha kept now."""
    needed = conformal_needed(alpha, guarantee)
    if keeps(n_conformal, alpha, guarantee):
        # All together are enough, and those of a group are not.
        return TooFewQuestionsError(
            f"{error.message}; {needed} conformal questions take about {to_collect(needed)} "
            "questions of that group in all",
            param=error.param,
        )
    kept = smallest_alpha(n_conformal, guarantee)
    raising = f" or raise --alpha to {kept:g}, the smallest that these keep" if kept < 1 else ""
    return TooFewQuestionsError(
        f"alpha {alpha:g} cannot be kept ({guarantee}) with {n_questions} questions: collect "
        f"about {to_collect(needed - n_conformal)} more{raising}",
        param="alpha",
    )
