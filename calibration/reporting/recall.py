"""What is found of files of OOD questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.confounds import Scores, matched_auroc, surface_scores
from calibration.reporting.scoring import GUARD, NO_LOOK, Scored, auroc, fpr95
from calibration.reporting.tables import aligned, percent
from detector.detector import Detector

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


def ood_rows(
    detector: Detector, inside: Scored, fitted_texts: Sequence[str], outside: Scored, name: str
) -> list[OodRow]:
    """A row for the guard, and one for each part if there are several: OOD questions against
    holdout ones, by scores and by surface, for which `fitted_texts` were fitted on. A part's row is
    of those whose responses got to its look, and there is none where no response did.
    """
    rows = []
    for score in outside.by_part:
        (known, inside_texts), (found, texts) = (_reached(of, score) for of in (inside, outside))
        if not (len(known) and len(found)):
            continue
        surface = surface_scores(fitted_texts, texts)
        inside_surface = surface_scores(fitted_texts, inside_texts)
        matched, n_pairs = matched_auroc(known, found, inside_texts, texts)
        rows.append(
            OodRow(
                name=name,
                score=score,
                n_questions=len(found),
                auroc=auroc(known, found),
                fpr95=fpr95(known, found),
                recall=float(outside.flagged(detector).mean()) if score == GUARD else None,
                matched=matched,
                n_pairs=n_pairs,
                surface_auroc=auroc(inside_surface, surface),
                surface_fpr95=fpr95(inside_surface, surface),
            )
        )
    return rows


def _reached(of: Scored, score: str) -> tuple[Scores, list[str]]:
    """Scores and texts of those that a part, or the guard, has seen; of the guard all."""
    scores = of.by_part[score]
    seen = (scores > NO_LOOK) | (score == GUARD)
    return scores[seen], [
        text for text, is_seen in zip(of.pool.texts, seen, strict=True) if is_seen
    ]


def written(rows: Sequence[OodRow]) -> list[str]:
    return ["", *aligned([_HEAD, *(row.cells() for row in rows)], 2)] if rows else []
