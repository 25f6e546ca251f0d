"""The false-alarm rate to expect on questions of new templates, of collections: see `unseen`."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.fit import FitOptions, Material, fit_detector
from calibration.pooling import Pool
from calibration.questions import contained
from calibration.unseen import Rows, UnseenRate, n_folds, unseen_rate
from detector.errors import CalibrationError, TooFewQuestionsError

FEW_TEMPLATES = 200
"""With fewer, the rate is measured whenever a guard is fitted."""


def rate_on_new_templates(material: Material, options: FitOptions) -> tuple[UnseenRate, bool]:
    """Leave templates out in turn, refit, and judge their questions; and whether the threshold
    was the one that holds for new templates. It is that of questions alike when templates are
    known, and when too few are left for the other.

    Raises CalibrationError for fewer than 3 templates, and when what is left cannot be fitted.
    """
    pools = material.pools
    known = pools.known()
    labels = np.asarray(known.units)
    looks = [part.look for part in material.parts]
    # Whatever it is: the threshold is taken elsewhere.
    loose = replace(options, alpha=0.5, guarantee="marginal", group_by=None)

    def background(fitted: set[int]) -> Pool | None:
        """Questions beside what is left out are left out with it."""
        pool = material.background
        if pool is None:
            return None
        return pool.take(
            [
                place
                for place, (key, fields) in enumerate(zip(pool.keys, pool.fields, strict=True))
                if all(
                    pools.templates.get(of, -1) in {-1, *fitted} for of in contained(key, fields)
                )
            ]
        )

    with tqdm(
        total=n_folds(len(set(known.units))),
        desc="templates left out",
        unit="fold",
        file=sys.stderr,
    ) as progress:

        def scores(fitted: Rows, others: Rows) -> NDArray[np.float64]:
            detector = fit_detector(
                known.take(fitted.tolist()),
                known.take(others[:1].tolist()),
                material.parts,
                loose,
                background(set(labels[fitted].tolist())),
            )
            progress.update()
            found: NDArray[np.float64] = (
                detector.maxima(known.take(others.tolist()).at(looks)).double().numpy()
            )
            return found

        weighted = not options.known_templates
        if weighted:
            try:
                return unseen_rate(known.units, scores, options.alpha, weighted=True), True
            except TooFewQuestionsError:
                progress.reset()
        return unseen_rate(known.units, scores, options.alpha), False


def rate_in_words(material: Material, options: FitOptions) -> str:
    """A line, that says why where questions are too few to leave any out."""
    what = "false alarms on questions of new templates"
    try:
        measured, weighted = rate_on_new_templates(material, options)
    except CalibrationError as error:
        return f"{what}: not measured ({error.message})"
    low, high = measured.interval
    return (
        f"{what}: {measured.rate:.1%}, 95 % interval {low:.1%} to {high:.1%} "
        f"({measured.n_templates} templates left out in turn, with the threshold for "
        f"{'new' if weighted else 'known'} templates)"
    )
