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

Questions that come in groups (templates), of which a new question brings its own, are not
exchangeable, their groups are. Then each of n groups has the weight of one, spread evenly over
its questions (Lee, Barber and Willett, 2023, "Distribution-free inference with hierarchical
data", arXiv:2306.06342):

    p(s) = (1 + sum of w_i over s_i >= s) / (n + 1),  w_i = 1 / size of i's group,

and P(p <= alpha) <= alpha for the first question of a new group, at no alpha below 1 / (n + 1).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from scipy.special import bdtr, betaincinv
from torch import Tensor

from detector.errors import CalibrationError, TooFewQuestionsError
from detector.verdict import Guarantee

CONFIDENCE = 0.95
"""Confidence of the PAC threshold and of every stated bound and interval."""


def p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """Conformal p-values of `scores` (any shape) against sorted `calibration` (n,)."""
    n = len(calibration)
    at_least = n - torch.searchsorted(calibration, scores.contiguous())
    return (1 + at_least).double() / (n + 1)


def smallest_alpha(n: int) -> float:
    """The smallest alpha at which n calibration questions can flag anything; n templates, where
    new questions are of new templates.
    """
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


def even_weights(groups: Sequence[Hashable]) -> Tensor:
    """Each question's share in its group's weight of one."""
    sizes = Counter(groups)
    return torch.tensor([1 / sizes[group] for group in groups], dtype=torch.float64)


def weighted_p_values(scores: Tensor, calibration: Tensor, weights: Tensor) -> Tensor:
    """p-values of `scores` (any shape) as of new groups' questions, against sorted `calibration`
    (n,) with the `weights` (n,) that `even_weights` gave their questions.
    """
    at_least = _weight_from(weights)[torch.searchsorted(calibration, scores.contiguous())]
    return (1 + at_least) / (1 + weights.double().sum())


def weighted_threshold(calibration: Tensor, weights: Tensor, alpha: float) -> float:
    """The score above which a question of a new group is flagged (marginal); arguments as those
    of `weighted_p_values`.

    Raises TooFewQuestionsError when there are fewer groups than alpha needs.
    """
    n = round(float(weights.sum()))
    # The slack is `rank`'s, of which sums of shares need more.
    spare = alpha * (n + 1) - 1 + 1e-9 * (n + 1)
    if spare < 0:
        raise TooFewQuestionsError(
            f"alpha {alpha:g} cannot be kept for questions of new templates with conformal "
            f"questions of {n} templates: collect questions of at least "
            f"{_questions_needed(alpha, 'marginal')} templates or raise alpha",
            param="alpha",
        )
    above = _weight_from(weights)[torch.searchsorted(calibration, calibration, right=True)]
    # The last score has nothing above it, so that one is always found.
    return float(calibration[int((above <= spare).double().argmax())])


def _weight_from(weights: Tensor) -> Tensor:
    """The weight of the i-th and all later scores, i = 0..n."""
    from_each = weights.double().flip(0).cumsum(0).flip(0)
    return torch.cat([from_each, from_each.new_zeros(1)])


@dataclass(frozen=True)
class Calibration:
    """What questions of known scope scored: `scores` (n,), sorted.

    `weights` (n,) are each question's share in its template's weight of one, None where every
    question counts for itself. Raises CalibrationError for scores that are NaN or not sorted: a
    threshold among them would flag nothing.
    """

    scores: Tensor
    weights: Tensor | None = None
    # Every verdict asks for the same few.
    _thresholds: dict[tuple[float, Guarantee], float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not bool((self.scores == self.scores.sort().values).all()):
            raise CalibrationError(
                "calibration scores are NaN or not sorted: fit the artifact again"
            )

    @classmethod
    def of(cls, scores: Tensor, templates: Sequence[Hashable] | None = None) -> Calibration:
        """Of scores (n,) in any order, and of each one's template if those are the unit."""
        ordered, order = scores.sort()
        if templates is None or len(set(templates)) == len(templates):
            return cls(ordered)
        return cls(ordered, even_weights(templates)[order])

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def n_units(self) -> int:
        """How many independent observations these are: templates, or questions."""
        return len(self.scores) if self.weights is None else round(float(self.weights.sum()))

    def threshold(self, alpha: float, guarantee: Guarantee = "marginal", whose: str = "") -> float:
        """The score above which a question is flagged.

        Under "pac" weighted questions count as their templates do: k of those, as if each had
        one question. Raises TooFewQuestionsError as `rank` does.
        """
        known = self._thresholds.get((alpha, guarantee))
        if known is None:
            known = self._thresholds[alpha, guarantee] = self._threshold(alpha, guarantee, whose)
        return known

    def _threshold(self, alpha: float, guarantee: Guarantee, whose: str) -> float:
        if self.weights is None:
            return float(self.scores[-rank(len(self.scores), alpha, guarantee, whose)])
        if guarantee == "pac":
            alpha = rank(self.n_units, alpha, guarantee, whose) / (self.n_units + 1)
        return weighted_threshold(self.scores, self.weights, alpha)

    def flag_rate_bound(
        self, alpha: float, guarantee: Guarantee = "marginal", delta: float = 1 - CONFIDENCE
    ) -> float:
        """What the rate of flags among questions of known scope, given this one calibration set,
        exceeds with probability `delta` at most: alpha holds on average over such sets, and one
        set may have a rate above it. That of a PAC threshold is alpha or less.

        Of weighted questions, templates are the observations, and each of n has a share of its
        questions above a score, with the rate there as its mean. The threshold is the lowest
        score where the shares sum to c = alpha (n + 1) - 1 or less. Shares in [0, 1] do that
        with a probability of at most e times that of as many ones and zeros of the same mean
        (Bentkus, 2004, "On Hoeffding's inequalities"), so the bound is the ones and zeros' at
        delta / e. Raises TooFewQuestionsError as `rank` does.
        """
        n, k = self.n_units, rank(self.n_units, alpha, guarantee)
        if self.weights is None:
            return false_alarm_bound(n, k, delta)
        if guarantee == "pac":
            alpha = k / (n + 1)
        # The slack is that of `weighted_threshold`.
        above = math.ceil(alpha * (n + 1) - 1 - 1e-9 * (n + 1))
        return false_alarm_bound(n, above + 1, delta / math.e)

    def p_value(self, score: float) -> float:
        """The conformal p-value of one score: that of `p_values`, or of `weighted_p_values`, at a
        fraction of their time.
        """
        ordered, weight_from = self._listed
        # Nothing is at or above NaN, as `searchsorted` has it.
        place = len(ordered) if math.isnan(score) else bisect_left(ordered, score)
        return (1 + weight_from[place]) / (1 + weight_from[0])

    @cached_property
    def _listed(self) -> tuple[list[float], list[float]]:
        """The scores, and the weight of the i-th and all later ones, i = 0..n."""
        weights = torch.ones_like(self.scores) if self.weights is None else self.weights
        return self.scores.tolist(), _weight_from(weights).tolist()

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """For each share the smallest score that at least so much of all weight is at or below."""
        weights = torch.ones_like(self.scores) if self.weights is None else self.weights
        up_to = weights.double().cumsum(0)
        wanted = torch.tensor(shares, dtype=torch.float64) * up_to[-1]
        # The slack keeps a share that is met exactly from being a rounding error short.
        places = torch.searchsorted(up_to, wanted - 1e-9 * up_to[-1])
        return [float(score) for score in self.scores[places]]


def false_alarm_bound(n: int, k: int, delta: float = 1 - CONFIDENCE) -> float:
    """What the realised false-alarm rate given one calibration set exceeds with probability
    `delta`: its 95 % point, where none is given.
    """
    return float(betaincinv(k, n + 1 - k, 1 - delta))


def proportion_interval(count: float, n: int) -> tuple[float, float]:
    """Clopper and Pearson's (1934) exact 95 % interval of a proportion, `count` of n.

    A `count` that is no whole number is a sum of n shares in [0, 1], which varies no more than
    one of n ones and zeros with its mean: the interval is then wider than it need be.
    """
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high
