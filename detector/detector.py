"""The detector: fitted looks, one threshold on their maximum, one verdict.

Each look's score is standardised so that 0 is the median and 1 the 95 % point of
in-distribution questions held out of the Gaussians. The decision statistic is the maximum
of the standardised scores over the looks taken, calibrated as that same maximum on the
conformal split: the false-alarm rate holds however often a generation is looked at.
Judging early is conservative, because the maximum can only grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detector import conformal
from detector.conformal import Guarantee
from detector.errors import CalibrationError
from detector.scores import FittedScore, ScoreName
from detector.trajectory import Look, look_name, stage

_SCALE_EVERY = 5
"""One row in five of the fit split sets location and scale, by Gaussians of the others."""


@dataclass(frozen=True)
class FittedLook:
    """A look, its score, and the location and scale that standardise the score."""

    look: Look
    score: FittedScore
    location: float
    scale: float

    @classmethod
    def fit(
        cls, look: Look, trajectories: Tensor, name: ScoreName, order: int, rank: int | None
    ) -> FittedLook:
        """Fit on the fit split's trajectories at this look, (n, L + 1, d).

        Raises CalibrationError below 10 trajectories or when the score does not vary.
        """
        n = len(trajectories)
        if n < 10:
            raise CalibrationError(
                f"look {look_name(look)!r}: the fit split has {n} trajectories and needs at "
                "least 10, collect more questions"
            )
        held_out = torch.arange(n) % _SCALE_EVERY == 0
        others = FittedScore.fit(name, trajectories[~held_out].unbind(1), order=order, rank=rank)
        raw = others.score(trajectories[held_out])[0].double()
        location, upper = torch.quantile(raw, torch.tensor([0.5, 0.95], dtype=raw.dtype)).tolist()
        if not upper > location:
            raise CalibrationError(
                f"look {look_name(look)!r}: the score is the same for all questions held out "
                "of the fit split, collect questions that differ"
            )
        score = FittedScore.fit(name, trajectories.unbind(1), order=order, rank=rank)
        return cls(look, score, location, upper - location)

    def standardise(self, raw: Tensor) -> Tensor:
        return (raw.double() - self.location) / self.scale


@dataclass(frozen=True)
class LookScore:
    """One look at one generation.

    `raw` is the score in its own units, `score` the standardised one, `distances` the
    per-layer distances behind it. `excluded` says why the look does not count towards the
    decision, or is None.
    """

    look: Look
    raw: float
    score: float
    distances: tuple[float, ...]
    excluded: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The judgement of one generation after the looks taken so far.

    `is_ood` is None when every look was excluded; then there is no score or p-value
    either. `stage` is the stage of the look at which a flag was raised, otherwise of the
    last look that counted.
    """

    is_ood: bool | None
    score: float | None
    p_value: float | None
    threshold: float
    alpha: float
    stage: str | None
    looks: tuple[LookScore, ...]


@dataclass(frozen=True)
class Detector:
    """Looks and the sorted conformal scores (n,) of their maximum, at one alpha."""

    looks: tuple[FittedLook, ...]
    calibration: Tensor
    alpha: float
    guarantee: Guarantee

    @classmethod
    def fit(
        cls,
        fit: Mapping[Look, Tensor],
        conformal: Mapping[Look, Tensor],
        *,
        score: ScoreName = "mahalanobis",
        order: int = 0,
        rank: int | None = None,
        alpha: float = 0.05,
        guarantee: Guarantee = "marginal",
    ) -> Detector:
        """Fit the looks on one split and calibrate their maximum on another.

        Both map each look to trajectories (n, L + 1, d). A row of NaN marks a response
        that ended before the look. Raises CalibrationError and TooFewQuestionsError.
        """
        looks = tuple(
            FittedLook.fit(look, rows[~rows[:, 0, 0].isnan()], score, order, rank)
            for look, rows in fit.items()
        )
        uncalibrated = cls(looks, torch.empty(0), alpha, guarantee)
        maxima = uncalibrated.maxima(conformal).sort().values
        return replace(uncalibrated, calibration=maxima).at(alpha, guarantee)

    def at(self, alpha: float, guarantee: Guarantee) -> Detector:
        """The same detector at another alpha or guarantee; never needs the model.

        Raises TooFewQuestionsError when the conformal split cannot keep it.
        """
        conformal.rank(len(self.calibration), alpha, guarantee)
        return replace(self, alpha=alpha, guarantee=guarantee)

    @property
    def threshold(self) -> float:
        """The standardised score above which a question is flagged."""
        return conformal.threshold(self.calibration, self.alpha, self.guarantee)

    def maxima(self, trajectories: Mapping[Look, Tensor]) -> Tensor:
        """The decision statistic of n generations whose looks have all been taken, (n,)."""
        columns = []
        for fitted in self.looks:
            raw, _ = fitted.score.score(trajectories[fitted.look])
            columns.append(fitted.standardise(raw).nan_to_num(nan=-torch.inf))
        return torch.stack(columns).amax(0)

    def score(self, look: Look, trajectories: Tensor) -> list[LookScore]:
        """Score a batch of trajectories (n, L + 1, d) taken at one look."""
        fitted = next(fitted for fitted in self.looks if fitted.look == look)
        raw, distances = fitted.score.score(trajectories)
        rows = zip(raw.tolist(), fitted.standardise(raw).tolist(), distances.tolist(), strict=True)
        return [LookScore(look, one, score, tuple(row)) for one, score, row in rows]

    def judge(self, looks: Sequence[LookScore]) -> Verdict:
        """The verdict after these looks, in the order in which they were taken."""
        counted = [look for look in looks if look.excluded is None]
        threshold = self.threshold
        if not counted:
            return Verdict(None, None, None, threshold, self.alpha, None, tuple(looks))
        score = max(look.score for look in counted)
        flagged = [look for look in counted if look.score > threshold]
        p_value = conformal.p_values(torch.tensor([score], dtype=torch.float64), self.calibration)
        return Verdict(
            is_ood=bool(flagged),
            score=score,
            p_value=float(p_value[0]),
            threshold=threshold,
            alpha=self.alpha,
            stage=stage((flagged or counted[-1:])[0].look),
            looks=tuple(looks),
        )
