"""The false-alarm rate to expect on questions of templates that calibration has not seen.

A holdout of questions from the same templates says nothing of it. So templates are left out: fit
and threshold are made of the others, those left out are judged, each template once (Roberts et
al., 2017, "Cross-validation strategies for data with ... hierarchical structure").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from detector import conformal
from detector.errors import CalibrationError

Rows = NDArray[np.int64]
Refit = Callable[[Rows, Rows], NDArray[np.float64]]
"""Scores of the second rows by what was fitted on the first."""

_FOLDS = 10
_LEAST = 3
# As the splits have it: 50 % to fit and 30 % conformal.
_FIT_SHARE = 5 / 8


@dataclass(frozen=True)
class UnseenRate:
    """`shares` holds, by template, the share of its questions flagged when it was left out.

    `rate` is their mean: of a question of a new template. `low` and `high` are its 95 % interval,
    Clopper and Pearson's with templates as the trials: whole templates are refused or not, so
    that 400 questions of 10 templates are 10 observations. A bootstrap or t interval of them has
    no width where no template was flagged, which with 10 says least; this one then still
    reaches 31 %. Where shares are no zeros and ones it is wider than it need be.
    """

    shares: dict[int, float]

    @property
    def n_templates(self) -> int:
        return len(self.shares)

    @property
    def rate(self) -> float:
        return sum(self.shares.values()) / self.n_templates

    @property
    def interval(self) -> tuple[float, float]:
        return conformal.proportion_interval(sum(self.shares.values()), self.n_templates)


def n_folds(n_templates: int) -> int:
    return min(_FOLDS, n_templates)


def unseen_rate(
    templates: Sequence[int], scores: Refit, alpha: float, *, weighted: bool = False, seed: int = 0
) -> UnseenRate:
    """Leave templates out, a tenth at a time, and count what is flagged of their questions.

    `templates` labels every question, `scores(fit, test)` refits on rows and scores others: it is
    called once for each of at most 10 folds. `weighted` takes the threshold that holds for
    new templates, otherwise it is that of questions alike, whose failing this measures.

    Raises CalibrationError for fewer than 3 templates, and TooFewQuestionsError when those left
    for the threshold cannot keep alpha: with `weighted`, about a quarter of all templates count.
    """
    labels = np.asarray(templates, dtype=np.int64)
    names = np.unique(labels)
    if len(names) < _LEAST:
        raise CalibrationError(
            f"the questions are of {len(names)} templates: leaving templates out needs {_LEAST}, "
            "collect questions of more",
            param="collected",
        )
    names = np.random.default_rng(seed).permutation(names)
    n = n_folds(len(names))
    shares: dict[int, float] = {}
    for fold in range(n):
        left_out = names[fold::n]
        # From the fold's place on, so that every template serves the threshold in some folds.
        others = np.roll(np.setdiff1d(names, left_out), -fold * len(names) // n)
        n_fit = min(max(round(_FIT_SHARE * len(others)), 1), len(others) - 1)
        fit, conform, test = (
            np.flatnonzero(np.isin(labels, part))
            for part in (others[:n_fit], others[n_fit:], left_out)
        )
        found = torch.from_numpy(scores(fit, np.concatenate([conform, test])))
        calibration, order = found[: len(conform)].sort()
        if weighted:
            weights = conformal.even_weights(labels[conform].tolist())[order]
            threshold = conformal.weighted_threshold(calibration, weights, alpha)
        else:
            threshold = conformal.threshold(calibration, alpha)
        flagged = (found[len(conform) :] > threshold).numpy()
        for template in left_out.tolist():
            shares[template] = float(flagged[labels[test] == template].mean())
    return UnseenRate(shares)
