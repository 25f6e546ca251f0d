"""From scores of in-distribution questions to a p-value, a threshold and their guarantee.

All n + 1 arithmetic lives here. With n calibration scores s_1..s_n exchangeable with the
score s of a new in-distribution question (Vovk, Gammerman and Shafer, 2005; Bates et al.,
2023, "Testing for outliers with conformal p-values"):

    p(s) = (1 + #{i : s_i >= s}) / (n + 1),  P(p <= alpha) <= alpha.

p <= alpha exactly when s lies above the k-th largest calibration score,
k = floor(alpha (n + 1)). That holds on average over calibration sets (marginal). Given one
calibration set, the realised false-alarm rate follows Beta(k, n + 1 - k) for continuous
scores; the PAC threshold takes the largest k for which that exceeds alpha with
probability at most 1 - confidence.
"""

from __future__ import annotations

import math

import torch
from scipy.special import bdtr, betaincinv
from torch import Tensor

from detector.errors import TooFewQuestionsError
from detector.verdict import Guarantee

CONFIDENCE = 0.95
"""Confidence of the PAC threshold and of every stated bound and interval."""


def p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """Conformal p-values of `scores` (any shape) against sorted `calibration` (n,)."""
    n = len(calibration)
    at_least = n - torch.searchsorted(calibration, scores.contiguous())
    return (1 + at_least).double() / (n + 1)


def smallest_alpha(n: int) -> float:
    """The smallest alpha at which n calibration questions can flag anything."""
    return 1 / (n + 1)


def rank(n: int, alpha: float, guarantee: Guarantee = "marginal", whose: str = "") -> int:
    """k: a question is flagged when its score exceeds the k-th largest of n.

    Raises TooFewQuestionsError when no k >= 1 keeps the guarantee at this alpha; `whose`
    says in it which questions are meant.
    """
    # The slack keeps floor(0.05 * 240) at 12 when the product is a rounding error short.
    marginal = math.floor(alpha * (n + 1) + 1e-9)
    if guarantee == "marginal":
        k = marginal
    else:
        k = next(
            (k for k in range(marginal, 0, -1) if _exceedance(k, n, alpha) <= 1 - CONFIDENCE), 0
        )
    if k < 1:
        needed = _questions_needed(alpha, guarantee)
        raise TooFewQuestionsError(
            f"alpha {alpha:g} cannot be kept ({guarantee}) with {n} conformal questions"
            f"{' ' * bool(whose)}{whose}: "
            f"collect at least {needed} or raise alpha",
            param="alpha",
        )
    return k


def _exceedance(k: int, n: int, alpha: float) -> float:
    """P(Beta(k, n + 1 - k) > alpha), as a binomial tail."""
    return float(bdtr(k - 1, n, alpha))


def _questions_needed(alpha: float, guarantee: Guarantee) -> int:
    if guarantee == "marginal":
        return math.ceil(1 / alpha - 1e-9) - 1
    # k = 1: (1 - alpha)^n <= 1 - confidence.
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-alpha))


def threshold(calibration: Tensor, alpha: float, guarantee: Guarantee = "marginal") -> float:
    """The score above which a question is flagged; `calibration` (n,) is sorted.

    Raises TooFewQuestionsError as `rank` does.
    """
    return float(calibration[-rank(len(calibration), alpha, guarantee)])


def false_alarm_bound(n: int, k: int) -> float:
    """The 95 % point of the realised false-alarm rate given one calibration set."""
    return float(betaincinv(k, n + 1 - k, CONFIDENCE))


def proportion_interval(count: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's (1934) exact 95 % interval of a proportion, `count` of n."""
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high
