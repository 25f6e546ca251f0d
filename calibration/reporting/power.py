"""Power on kinds of questions that the background does not contain."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from calibration.background import FIRST, LAST, TURN
from calibration.fit import FitOptions, Material, fit_detector
from calibration.pooling import Pool
from calibration.reporting.false_alarms import variations_of
from calibration.reporting.scoring import Flags, groups_of, scores_of, thresholds
from calibration.reporting.tables import aligned, percent
from calibration.vary import AS_TYPED
from detector.detector import Detector
from detector.errors import CalibrationError
from detector.fitted_look import Part
from detector.groups import Grouping

_FOLDS = 5
_REWRITTEN = "rewritten"


@dataclass(frozen=True)
class PowerRow:
    """What is flagged of background questions of a kind, or in a place, when the contrast is
    fitted without their kinds; and what the mean Mahalanobis distance flags, which has none.
    """

    name: str
    n_questions: int
    recall: float
    recall_without: float

    def cells(self) -> list[str]:
        return [
            self.name,
            str(self.n_questions),
            percent(self.recall),
            percent(self.recall_without),
        ]


@dataclass(frozen=True)
class Power:
    """Rows for all kinds together, by where the question stands, and by its kind."""

    total: PowerRow
    places: tuple[PowerRow, ...]
    kinds: tuple[PowerRow, ...]

    def __str__(self) -> str:
        head = ["questions", "with contrast", "without"]
        lines = ["power on kinds that the background does not contain: recall in %"]
        for heading, rows in (("", (self.total, *self.places)), ("kind", self.kinds)):
            lines += ["", *aligned([[heading, *head], *(row.cells() for row in rows)])]
        return "\n".join(lines)


def power(material: Material, options: FitOptions, grouping: Grouping | None) -> Power:
    """Leave a fifth of the kinds out of the background at a time and refit.

    Raises CalibrationError when its questions are not of two kinds.
    """
    pool = material.background
    assert pool is not None
    kinds = [fields.get("kind", "") for fields in pool.fields]
    names = sorted(set(kinds))
    if len(names) < 2:
        raise CalibrationError(
            f"the {len(kinds)} background questions are of one kind: name several in a text field "
            "'kind' of the questions file and collect again, or leave --contrast out",
            param="contrast",
        )
    random.Random(0).shuffle(names)  # noqa: S311 (reproducible, not secret)
    n_folds = min(_FOLDS, len(names))
    flagged = np.zeros(len(pool), dtype=bool)
    folds = [set(names[fold::n_folds]) for fold in range(n_folds)]
    for left_out in tqdm(folds, desc="kinds left out", unit="fold", file=sys.stderr):
        inside = [place for place, kind in enumerate(kinds) if kind not in left_out]
        outside = [place for place, kind in enumerate(kinds) if kind in left_out]
        known = replace(material, background=pool.take(inside))
        detector = _fitted(known, material.parts, options, grouping)
        flagged[outside] = _flags(detector, pool.take(outside), grouping)
    parts = tuple(Part(look) for look in dict.fromkeys(part.look for part in material.parts))
    alone = _fitted(replace(material, background=None), parts, options, grouping)
    without = _flags(alone, pool, grouping)

    def rows(labels: Sequence[str]) -> tuple[PowerRow, ...]:
        found = (
            (name, np.array([label == name for label in labels])) for name in sorted(set(labels))
        )
        by_name = [
            PowerRow(name, int(of.sum()), float(flagged[of].mean()), float(without[of].mean()))
            for name, of in found
        ]
        return tuple(sorted(by_name, key=lambda row: (row.recall, row.name)))

    return Power(
        total=rows(["all"] * len(pool))[0],
        places=rows([_place(names) for names in variations_of(pool)]),
        kinds=rows(kinds),
    )


def _place(names: Sequence[str]) -> str:
    return next((name for name in names if name in (AS_TYPED, FIRST, LAST, TURN)), _REWRITTEN)


def _fitted(
    material: Material, parts: Sequence[Part], options: FitOptions, grouping: Grouping | None
) -> Detector:
    pools = material.pools
    groups = None if grouping is None else pools["conformal"].groups(grouping)
    return fit_detector(
        pools["fit"], pools["conformal"], parts, options, material.background, groups
    )


def _flags(detector: Detector, pool: Pool, grouping: Grouping | None) -> Flags:
    flags: Flags = scores_of(detector, pool) > thresholds(detector, groups_of(grouping, pool))
    return flags
