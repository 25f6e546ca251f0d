"""What is found of files of OOD questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibration.confounds import Scores, matched_auroc, surface_scores
from calibration.pooling import Pool
from calibration.reporting.scoring import (
    GUARD,
    auroc,
    fpr95,
    groups_of,
    scores_by_part,
    thresholds,
)
from calibration.reporting.tables import aligned, percent
from detector.detector import Detector
from detector.groups import Grouping

_HEAD = [
    "OOD file",
    "score",
    "questions",
    "AUROC",
    "FPR95",
    "recall",
    "matched (pairs)",
    "surface AUROC",
    "surface FPR95",
]


@dataclass(frozen=True)
class OodRow:
    """One score on one OOD file: AUROC and FPR95 in [0, 1], OOD positive, and what confounds
    could explain of them.

    `score` is "guard" or one of its parts; `recall` is at the threshold, the guard's alone.
    `matched` is the AUROC over `n_pairs` pairs of like surface, `surface_auroc` and
    `surface_fpr95` are those of surface counts without a model.
    """

    name: str
    score: str
    n_questions: int
    auroc: float
    fpr95: float
    recall: float | None
    matched: float | None
    n_pairs: int
    surface_auroc: float
    surface_fpr95: float

    def cells(self) -> list[str]:
        """As the report prints them, rates in per cent."""
        return [
            self.name,
            self.score,
            str(self.n_questions),
            percent(self.auroc),
            percent(self.fpr95),
            percent(self.recall),
            f"{percent(self.matched)} ({self.n_pairs})",
            percent(self.surface_auroc),
            percent(self.surface_fpr95),
        ]


@dataclass(frozen=True)
class Inside:
    """Holdout questions with their scores by part, and the texts that were fitted on: what OOD
    questions are compared with.
    """

    texts: Sequence[str]
    scores: Mapping[str, Scores]
    surface: Scores
    fitted_texts: Sequence[str]


def ood_rows(
    detector: Detector, grouping: Grouping | None, inside: Inside, outside: Pool, name: str
) -> list[OodRow]:
    """A row for the guard, and one for each part if there are several."""
    cuts = thresholds(detector, groups_of(grouping, outside))
    surface = surface_scores(inside.fitted_texts, outside.texts)
    rows = []
    for score, found in scores_by_part(detector, outside).items():
        matched, n_pairs = matched_auroc(inside.scores[score], found, inside.texts, outside.texts)
        rows.append(
            OodRow(
                name=name,
                score=score,
                n_questions=len(found),
                auroc=auroc(inside.scores[score], found),
                fpr95=fpr95(inside.scores[score], found),
                recall=float((found > cuts).mean()) if score == GUARD else None,
                matched=matched,
                n_pairs=n_pairs,
                surface_auroc=auroc(inside.surface, surface),
                surface_fpr95=fpr95(inside.surface, surface),
            )
        )
    return rows


def written(rows: Sequence[OodRow]) -> list[str]:
    return ["", *aligned([_HEAD, *(row.cells() for row in rows)], 2)] if rows else []
