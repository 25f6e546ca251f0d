"""The detector: fitted scores at looks, one threshold on their maximum, one verdict.

A detector consists of parts, each a score at a look. Each part's score is standardised so
that 0 is the median and 1 the 95 % point of in-distribution questions held out of the
Gaussians. The decision statistic is the maximum of the standardised scores over the looks
taken, calibrated as that same maximum on the conformal split: the false-alarm rate holds
however often a generation is looked at. Judging early is conservative, because the maximum
can only grow. Standardising happens within clusters of trajectories where there are some.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from detector.band import band_of
from detector.clusters import Clusters
from detector.conformal import CONFIDENCE, Calibration, even_weights
from detector.contrast import Weights
from detector.errors import CalibrationError
from detector.fitted_look import FittedLook, Part, fit_look
from detector.neighbours import Neighbours
from detector.planes import Planes
from detector.scores import Learned
from detector.trajectory import Look, in_order, look_name, stage
from detector.verdict import Guarantee, LookScore, Verdict


@dataclass(frozen=True)
class Detector:
    """Looks and what the conformal split scored as their maximum, at one alpha.

    `groups` holds the same of each group of questions, if they are judged by group. `neighbours`
    explain, and decide nothing.
    """

    looks: tuple[FittedLook, ...]
    calibration: Calibration
    alpha: float
    guarantee: Guarantee
    groups: Mapping[str, Calibration] = field(default_factory=dict)
    neighbours: Neighbours | None = None

    @classmethod
    def fit(
        cls,
        fit: Mapping[Look, Planes],
        conformal: Mapping[Look, Planes],
        *,
        parts: Sequence[Part] | None = None,
        background: Mapping[Look, Planes] | None = None,
        weights: Weights | None = None,
        clusters: Mapping[Look, Clusters] | None = None,
        fit_templates: Sequence[Hashable] | None = None,
        templates: Sequence[Hashable] | None = None,
        groups: Sequence[str | None] | None = None,
        rank: int | None = None,
        alpha: float = 0.05,
        guarantee: Guarantee = "marginal",
    ) -> Detector:
        """Fit the parts on one split and calibrate their maximum on another.

        Both map each look to its trajectories, which may lie on disk: memory is bounded by
        one plane, a batch and the Gaussians. A row of NaN marks a response that ended before
        the look. `parts` defaults to the mean Mahalanobis distance at every look. `background`
        holds trajectories of other questions, which the contrast needs, and `weights` say what
        fit and background rows weigh in it. `clusters` are those to standardise in.
        `fit_templates` and `templates` name the template of each fit and conformal row, which
        are then the unit that the guarantee counts; `groups` names the group of each conformal
        row. Raises CalibrationError and TooFewQuestionsError.
        """
        chosen = [Part(look) for look in fit] if parts is None else parts
        looks = tuple(
            fitted
            for look in in_order({part.look for part in chosen})
            for fitted in fit_look(
                look,
                [part for part in chosen if part.look == look],
                fit[look],
                rank,
                background=None if background is None else background[look],
                weights=weights,
                clusters=None if clusters is None else clusters.get(look),
                templates=fit_templates,
            )
        )
        uncalibrated = cls(looks, Calibration(torch.empty(0)), alpha, guarantee)
        return uncalibrated.calibrated(conformal, templates=templates, groups=groups)

    def calibrated(
        self,
        conformal: Mapping[Look, Planes],
        *,
        templates: Sequence[Hashable] | None = None,
        groups: Sequence[str | None] | None = None,
    ) -> Detector:
        """The same looks, alpha and guarantee with thresholds of a conformal split; arguments and
        errors as those of `fit`.
        """
        maxima = self.maxima(conformal)
        named = groups or []
        by_group = {}
        for name in sorted({group for group in named if group is not None}):
            rows = [row for row, group in enumerate(named) if group == name]
            theirs = None if templates is None else [templates[row] for row in rows]
            by_group[name] = Calibration.of(maxima[rows], theirs)
        whole = Calibration.of(maxima, templates)
        return replace(self, calibration=whole, groups=by_group).at(self.alpha, self.guarantee)

    def at(self, alpha: float, guarantee: Guarantee) -> Detector:
        """The same detector at another alpha or guarantee; never needs the model.

        Raises TooFewQuestionsError when the conformal split, or a group, cannot keep it, and
        CalibrationError when so few generations got to a look that no threshold is finite.
        """
        thresholds = [self.calibration.threshold(alpha, guarantee)]
        for name, calibration in self.groups.items():
            thresholds.append(calibration.threshold(alpha, guarantee, f"of group {name!r}"))
        if not all(map(math.isfinite, thresholds)):
            raise CalibrationError(
                f"at alpha {alpha:g} the threshold is not finite, because most conformal responses "
                "end before the first look: look earlier or lower alpha",
                param="alpha",
            )
        return replace(self, alpha=alpha, guarantee=guarantee)

    def with_bands(
        self, conformal: Mapping[Look, Planes], templates: Sequence[Hashable] | None = None
    ) -> Detector:
        """The same detector with the in-distribution band of each score's distances, by the
        trajectories and templates that it was calibrated on. What it decides stays as it is.
        """
        looks = []
        for fitted in self.looks:
            planes = conformal[fitted.look]
            weights = torch.ones(planes.n_rows) if templates is None else even_weights(templates)
            distances = (fitted.score.distances(batch) for batch in planes.batches())
            looks.append(replace(fitted, band=band_of(distances, weights)))
        return replace(self, looks=tuple(looks))

    def to(self, device: torch.device) -> Detector:
        """The same detector for trajectories on a device."""
        moved: dict[int, Learned | None] = {}
        looks = []
        for fitted in self.looks:
            learned = fitted.score.learned
            if id(learned) not in moved:
                moved[id(learned)] = None if learned is None else learned.to(device)
            looks.append(
                replace(
                    fitted,
                    score=replace(fitted.score, learned=moved[id(learned)]),
                    location=fitted.location.to(device),
                    scale=fitted.scale.to(device),
                    clusters=None if fitted.clusters is None else fitted.clusters.to(device),
                )
            )
        neighbours = None if self.neighbours is None else self.neighbours.to(device)
        return replace(self, looks=tuple(looks), neighbours=neighbours)

    @property
    def threshold(self) -> float:
        """The standardised score above which a question of no group is flagged."""
        return self.threshold_of(None)

    def threshold_of(self, group: str | None) -> float:
        """The same for a question of a group; one that was not calibrated is no group."""
        return self._calibration_of(group).threshold(self.alpha, self.guarantee)

    def flag_rate_bound(self) -> float:
        """What the rate of flags in distribution exceeds with probability 1 - CONFIDENCE at most,
        whatever the traffic's shares of the groups: the largest of their bounds, each kept with
        so much more confidence that all are kept at once.
        """
        calibrations = [self.calibration, *self.groups.values()]
        delta = (1 - CONFIDENCE) / len(calibrations)
        return max(each.flag_rate_bound(self.alpha, self.guarantee, delta) for each in calibrations)

    def _calibration_of(self, group: str | None) -> Calibration:
        return self.calibration if group is None else self.groups.get(group, self.calibration)

    def maxima(self, trajectories: Mapping[Look, Planes]) -> Tensor:
        """The decision statistic of n generations whose looks have all been taken, (n,).

        That of one that ended before every look is minus infinity. Raises CalibrationError when
        a trajectory has no finite score: it would pass for the least OOD of all.
        """
        columns = []
        for look in dict.fromkeys(fitted.look for fitted in self.looks):
            maxima = [self._maxima_at(look, batch) for batch in trajectories[look].batches()]
            columns.append(torch.cat(maxima))
        return torch.stack(columns).amax(0)

    def _maxima_at(self, look: Look, batch: Tensor) -> Tensor:
        """The same at one look, of the rows (n, L + 1, d) of a batch."""
        ended_before = batch.isnan().flatten(1).all(1)
        maxima = batch.new_full((len(batch),), -torch.inf, dtype=torch.float64)
        for fitted, raw, _ in self._measured(look, batch):
            scores = fitted.standardise(raw, fitted.clusters_of(batch))
            if not bool((scores.isfinite() | ended_before).all()):
                raise CalibrationError(
                    f"the score {fitted.part.score_name!r} at look {look_name(look)!r} of a "
                    "question is NaN or infinite: judge by another score or leave the question "
                    "out"
                )
            maxima = torch.where(ended_before, maxima, torch.maximum(maxima, scores))
        return maxima

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
            key = (id(score.learned), score.order)
            if key not in known:
                known[key] = score.distances(trajectories)
            yield fitted, score.summary(trajectories, known[key]), known[key]

    def score(self, look: Look, trajectories: Tensor) -> list[list[LookScore]]:
        """Every score taken at a look, for each of a batch of trajectories (n, L + 1, d)."""
        scored: list[list[LookScore]] = [[] for _ in range(len(trajectories))]
        for fitted, raw, distances in self._measured(look, trajectories):
            standardised = fitted.standardise(raw, fitted.clusters_of(trajectories)).tolist()
            rows = zip(scored, raw.tolist(), standardised, distances.tolist(), strict=True)
            for scores, one, standard, row in rows:
                scores.append(LookScore(look, fitted.part.score_name, one, standard, tuple(row)))
        return scored

    def judge(self, looks: Sequence[LookScore], group: str | None = None) -> Verdict:
        """The verdict after these looks, in the order in which they were taken.

        A look whose score is not finite decides nothing: unless another raises a flag, the
        verdict has its failure and says neither OOD nor in distribution.
        """
        counted = [look for look in looks if look.excluded is None]
        scored = [look for look in counted if not look.failure]
        group = group if group in self.groups else None
        threshold = self.threshold_of(group)
        flagged = [look for look in scored if look.score > threshold]
        failed = [look for look in counted if look.failure]
        if not counted or (failed and not flagged):
            at = stage(failed[-1].look) if failed else None
            return Verdict(None, None, None, threshold, self.alpha, at, tuple(looks), group)
        score = max(look.score for look in scored)
        return Verdict(
            is_ood=bool(flagged),
            score=score,
            p_value=self._calibration_of(group).p_value(score),
            threshold=threshold,
            alpha=self.alpha,
            stage=stage((flagged or counted[-1:])[0].look),
            looks=tuple(looks),
            group=group,
        )
