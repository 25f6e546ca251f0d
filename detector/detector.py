"""The detector: fitted scores at looks, one threshold on their maximum, one verdict.

A detector consists of parts, each a score at a look. Each part's score is standardised so
that 0 is the median and 1 the 95 % point of in-distribution questions held out of the
Gaussians. The decision statistic is the maximum of the standardised scores over the looks
taken, calibrated as that same maximum on the conformal split: the false-alarm rate holds
however often a generation is looked at. Judging early is conservative, because the maximum
can only grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from detector import conformal
from detector.errors import CalibrationError
from detector.gaussian import GaussianFits
from detector.planes import Planes
from detector.scores import ORDERS, SCORES, FittedScore, Gaussians
from detector.trajectory import Look, in_order, look_name, parse_look, stage
from detector.verdict import Guarantee, LookScore, Verdict

MIN_TRAJECTORIES = 10
"""The fewest trajectories that a look can be fitted to."""

_SCALE_EVERY = 5
"""One row in five of the fit split sets location and scale, by Gaussians of the others."""


class Part(NamedTuple):
    """A score at a look, before anything is fitted."""

    look: Look
    score: str = "mahalanobis"
    order: int = 0

    @property
    def score_name(self) -> str:
        """The score with its order, if it has one: "tv-paper:1"."""
        return f"{self.score}:{self.order}" if self.order else self.score

    def __str__(self) -> str:
        return f"{look_name(self.look)}:{self.score_name}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """Inverse of `str`. Raises CalibrationError when `text` is no such thing."""
        look, _, rest = text.partition(":")
        score, _, order = rest.partition(":")
        name = score or "mahalanobis"
        if name not in SCORES or (order and not (order.isdecimal() and int(order) in ORDERS)):
            raise CalibrationError(
                f"{text!r} is no score at a look: write LOOK:SCORE or LOOK:SCORE:ORDER with a "
                f"score of {', '.join(SCORES)} and an order of 0 to {ORDERS[-1]}",
                param="guard",
            )
        return cls(parse_look(look), name, int(order or 0))


@dataclass(frozen=True)
class FittedLook:
    """A look, one score taken at it, and the location and scale that standardise that."""

    look: Look
    score: FittedScore
    location: float
    scale: float

    @property
    def part(self) -> Part:
        return Part(self.look, self.score.name, self.score.order)

    def standardise(self, raw: Tensor) -> Tensor:
        return (raw.double() - self.location) / self.scale


def fit_look(
    look: Look, parts: Sequence[Part], planes: Planes, rank: int | None
) -> tuple[FittedLook, ...]:
    """Fit the parts taken at one look on the fit split's trajectories there.

    A row of NaN, a response that ended before the look, is left out. Scores that measure
    against the same Gaussians share them. Raises CalibrationError below 10 trajectories
    or when a score does not vary.
    """
    reached = planes.select(~planes[0][:, 0].isnan())
    n = reached.n_rows
    if n < MIN_TRAJECTORIES:
        raise CalibrationError(
            f"look {look_name(look)!r}: the fit split has {n} trajectories and needs at "
            f"least {MIN_TRAJECTORIES}, collect more questions"
        )
    held_out = torch.arange(n) % _SCALE_EVERY == 0
    whole = GaussianFits(reached, rank)
    others = GaussianFits(reached.select(~held_out), rank)
    fitted = []
    for part in parts:
        score = SCORES[part.score].fit(others, part.order)
        held_out_scores = [
            score.score(batch).double() for batch in reached.select(held_out).batches()
        ]
        quantiles = torch.tensor([0.5, 0.95], dtype=torch.float64)
        location, upper = torch.quantile(torch.cat(held_out_scores), quantiles).tolist()
        if not upper > location:
            raise CalibrationError(
                f"look {look_name(look)!r}: the score {part.score_name!r} is the same for all "
                "questions held out of the fit split, collect questions that differ"
            )
        final = SCORES[part.score].fit(whole, part.order)
        fitted.append(FittedLook(look, final, location, upper - location))
    return tuple(fitted)


@dataclass(frozen=True)
class Detector:
    """Looks and the sorted conformal scores (n,) of their maximum, at one alpha.

    `groups` holds the scores of each group of questions, if they are judged by group.
    """

    looks: tuple[FittedLook, ...]
    calibration: Tensor
    alpha: float
    guarantee: Guarantee
    groups: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        fit: Mapping[Look, Planes],
        conformal: Mapping[Look, Planes],
        *,
        parts: Sequence[Part] | None = None,
        groups: Sequence[str | None] | None = None,
        rank: int | None = None,
        alpha: float = 0.05,
        guarantee: Guarantee = "marginal",
    ) -> Detector:
        """Fit the parts on one split and calibrate their maximum on another.

        Both map each look to its trajectories, which may lie on disk: memory is bounded by
        one plane, a batch and the Gaussians. A row of NaN marks a response that ended before
        the look. `parts` defaults to the mean Mahalanobis distance at
        every look. `groups` names the group of each conformal row. Raises CalibrationError
        and TooFewQuestionsError.
        """
        chosen = [Part(look) for look in fit] if parts is None else parts
        looks = tuple(
            fitted
            for look in in_order({part.look for part in chosen})
            for fitted in fit_look(look, [p for p in chosen if p.look == look], fit[look], rank)
        )
        uncalibrated = cls(looks, torch.empty(0), alpha, guarantee)
        maxima = uncalibrated.maxima(conformal)
        named = groups or []
        by_group = {
            name: maxima[[group == name for group in named]].sort().values
            for name in sorted({group for group in named if group is not None})
        }
        calibrated = replace(uncalibrated, calibration=maxima.sort().values, groups=by_group)
        return calibrated.at(alpha, guarantee)

    def at(self, alpha: float, guarantee: Guarantee) -> Detector:
        """The same detector at another alpha or guarantee; never needs the model.

        Raises TooFewQuestionsError when the conformal split, or a group, cannot keep it.
        """
        conformal.rank(len(self.calibration), alpha, guarantee)
        for name, scores in self.groups.items():
            conformal.rank(len(scores), alpha, guarantee, f"of group {name!r}")
        return replace(self, alpha=alpha, guarantee=guarantee)

    def to(self, device: torch.device) -> Detector:
        """The same detector for trajectories on a device."""
        moved: dict[int, Gaussians | None] = {}
        looks = []
        for fitted in self.looks:
            gaussians = fitted.score.gaussians
            if id(gaussians) not in moved:
                moved[id(gaussians)] = gaussians and gaussians.to(device)
            score = replace(fitted.score, gaussians=moved[id(gaussians)])
            looks.append(replace(fitted, score=score))
        return replace(self, looks=tuple(looks))

    @property
    def threshold(self) -> float:
        """The standardised score above which a question of no group is flagged."""
        return self.threshold_of(None)

    def threshold_of(self, group: str | None) -> float:
        """The same for a question of a group; one that was not calibrated is no group."""
        whole = self.calibration
        calibration = whole if group is None else self.groups.get(group, whole)
        return conformal.threshold(calibration, self.alpha, self.guarantee)

    def maxima(self, trajectories: Mapping[Look, Planes]) -> Tensor:
        """The decision statistic of n generations whose looks have all been taken, (n,)."""
        columns = []
        for look in dict.fromkeys(fitted.look for fitted in self.looks):
            maxima = [
                torch.stack(
                    [fitted.standardise(raw) for fitted, raw, _ in self._measured(look, batch)]
                ).amax(0)
                for batch in trajectories[look].batches()
            ]
            columns.append(torch.cat(maxima).nan_to_num(nan=-torch.inf))
        return torch.stack(columns).amax(0)

    def _measured(
        self, look: Look, trajectories: Tensor
    ) -> Iterator[tuple[FittedLook, Tensor, Tensor]]:
        """Each score at a look with its values (n,) and distances (n, planes). Distances to
        the same Gaussians are measured once.
        """
        known: dict[tuple[int, int], Tensor] = {}
        for fitted in self.looks:
            if fitted.look != look:
                continue
            score = fitted.score
            key = (id(score.gaussians), score.order)
            if key not in known:
                known[key] = score.distances(trajectories)
            yield fitted, score.summary(trajectories, known[key]), known[key]

    def score(self, look: Look, trajectories: Tensor) -> list[list[LookScore]]:
        """Every score taken at a look, for each of a batch of trajectories (n, L + 1, d)."""
        scored: list[list[LookScore]] = [[] for _ in trajectories]
        for fitted, raw, distances in self._measured(look, trajectories):
            standardised = fitted.standardise(raw).tolist()
            rows = zip(scored, raw.tolist(), standardised, distances.tolist(), strict=True)
            for scores, one, standard, row in rows:
                scores.append(LookScore(look, fitted.part.score_name, one, standard, tuple(row)))
        return scored

    def judge(self, looks: Sequence[LookScore], group: str | None = None) -> Verdict:
        """The verdict after these looks, in the order in which they were taken."""
        counted = [look for look in looks if look.excluded is None]
        group = group if group in self.groups else None
        calibration = self.calibration if group is None else self.groups[group]
        threshold = self.threshold_of(group)
        if not counted:
            return Verdict(None, None, None, threshold, self.alpha, None, tuple(looks), group)
        score = max(look.score for look in counted)
        flagged = [look for look in counted if look.score > threshold]
        p_value = conformal.p_values(torch.tensor([score], dtype=torch.float64), calibration)
        return Verdict(
            is_ood=bool(flagged),
            score=score,
            p_value=float(p_value[0]),
            threshold=threshold,
            alpha=self.alpha,
            stage=stage((flagged or counted[-1:])[0].look),
            looks=tuple(looks),
            group=group,
        )
