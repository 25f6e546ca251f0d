"""What a detector makes of pools of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from calibration.confounds import Scores
from calibration.pooling import Pool
from detector.detector import Detector
from detector.groups import Grouping

GUARD = "guard"
NO_LOOK = -1e300
"""The score of a response that ended before every look, lowest of all."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """Questions, their scores by the guard and by each part, and the group of each."""

    pool: Pool
    by_part: dict[str, Scores]
    groups: Sequence[str | None]

    @classmethod
    def of(cls, detector: Detector, grouping: Grouping | None, pool: Pool) -> Scored:
        return cls(pool, scores_by_part(detector, pool), groups_of(grouping, pool))

    @property
    def scores(self) -> Scores:
        """The guard's."""
        return self.by_part[GUARD]

    def flagged(self, detector: Detector) -> Flags:
        """At the detector's alpha, whichever that is."""
        flags: Flags = self.scores > thresholds(detector, self.groups)
        return flags


def scores_of(detector: Detector, pool: Pool) -> Scores:
    """The guard's decision statistic."""
    return _finite(detector.maxima(pool.at([fitted.look for fitted in detector.looks])))


def scores_by_part(detector: Detector, pool: Pool) -> dict[str, Scores]:
    """The same, and each part's score if there are several."""
    planes = pool.at([fitted.look for fitted in detector.looks])
    scores = {GUARD: _finite(detector.maxima(planes))}
    if len(detector.looks) > 1:
        for fitted in detector.looks:
            alone = replace(detector, looks=(fitted,))
            scores[str(fitted.part)] = _finite(alone.maxima(planes))
    return scores


def groups_of(grouping: Grouping | None, pool: Pool) -> list[str | None]:
    return [None] * len(pool) if grouping is None else pool.groups(grouping)


def thresholds(detector: Detector, groups: Sequence[str | None]) -> Scores:
    """The threshold of each question by its group."""
    cuts = {group: detector.threshold_of(group) for group in set(groups)}
    return np.array([cuts[group] for group in groups])


def auroc(inside: Scores, outside: Scores) -> float:
    labels = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    return float(roc_auc_score(labels, np.r_[inside, outside]))


def fpr95(inside: Scores, outside: Scores) -> float:
    """The false-positive rate at the first threshold that finds 95 % of the OOD questions."""
    labels = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    false, true, _ = roc_curve(labels, np.r_[inside, outside], drop_intermediate=False)
    return float(false[np.argmax(true >= 0.95)])


def _finite(scores: Tensor) -> Scores:
    """ROC curves want `NO_LOOK` finite."""
    finite: Scores = np.nan_to_num(scores.double().numpy(), neginf=NO_LOOK)
    return finite
