"""What the benchmark measured, for the JSON document, the table and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cell:
    """One score on one OOD file, all in [0, 1].

    `auroc` and `fpr95` over all rows; `drawn` their means and standard deviations over
    balanced draws; `recall` at alpha, mean over conformal re-splits; `matched` AUROC over
    `n_pairs` matched pairs; `youden_recall` and `youden_false_alarms` at the cut that
    maximises their difference, chosen with the OOD data.
    """

    auroc: float
    fpr95: float
    drawn_auroc: tuple[float, float]
    drawn_fpr95: tuple[float, float]
    recall: float
    matched: float | None
    n_pairs: int
    youden_recall: float
    youden_false_alarms: float


@dataclass(frozen=True)
class ScoreRow:
    """One score: a cell for each OOD file, and what holds on the ID file.

    `false_alarms` is the mean realised rate over random re-splits, `false_alarms_exact` the
    mean over all of them, `false_alarms_high` the 95 % point of the random ones,
    `pac_false_alarms` their mean under the PAC threshold, None where too few questions allow
    one. `quality` maps each file with
    numeric answers to Kendall's and Spearman's correlation of the score with a wrong answer.
    """

    name: str
    cells: dict[str, Cell]
    false_alarms: float
    false_alarms_exact: float
    false_alarms_high: float
    pac_false_alarms: float | None
    length_correlation: float | None
    quality: dict[str, tuple[float, float]]

    def mean(self, field: str, sets: Sequence[str]) -> float | None:
        """The mean of one field over the OOD files that have it; None without one."""
        values = [getattr(self.cells[name], field) for name in sets]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class Benchmark:
    """Everything measured, and the raw scores and distances behind the pictures.

    `bound` is the 95 % point of the realised false-alarm rate by the Beta law, `bound_seen`
    that of the rate seen on as few questions as a re-split leaves, by the beta-binomial law.
    `peeking_false_alarms` is the exact mean over re-splits of a guard that takes every look.
    """

    model_name: str
    id_name: str
    n_fit: int
    n_test: int
    alpha: float
    n_conformal: int
    bound: float
    bound_seen: float
    near: tuple[str, ...]
    far: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    accuracy: dict[str, float]
    peeking_false_alarms: float | None
    scores: dict[str, dict[str, list[float]]]
    layers: dict[str, list[float]]
