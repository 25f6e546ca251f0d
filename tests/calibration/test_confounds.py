"""Surface baselines and matched pairs, by hand."""

import numpy as np
import pytest

from calibration.confounds import (
    length_correlation,
    matched_auroc,
    n_numbers,
    surface_counts,
    surface_scores,
)
from calibration.generate import generate


def test_counts_by_hand() -> None:
    assert n_numbers("1,200 and 3.5 and 7") == 3
    counts = surface_counts("Ann has 12 pens. $x=3$?")
    assert counts == [5, 23, 2, 3, 2, 1, 3, 0]


def test_matched_pairs_by_hand() -> None:
    inside = ["1 a b", "1 2 a b"]
    outside = ["2 a b c", "9 " + "w " * 20]
    # Only the first pair matches: one number each, three and four words.
    auroc, n_pairs = matched_auroc(np.array([0.3, 0.9]), np.array([0.5, 0.0]), inside, outside)
    assert (auroc, n_pairs) == (1.0, 1)
    tied, _ = matched_auroc(np.array([0.5, 0.9]), np.array([0.5, 0.0]), inside, outside)
    assert tied == 0.5
    nothing, n_pairs = matched_auroc(np.array([1.0]), np.array([1.0]), ["1"], ["no number"])
    assert nothing is None
    assert n_pairs == 0


def test_surface_baseline_tells_lengths_apart() -> None:
    questions = [question for question, _ in generate(200, seed=0)]
    fit, test = questions[:120], questions[120:]
    long = [f"{a} {b} {c}" for a, b, c in zip(fit[::3], fit[1::3], fit[2::3], strict=True)]
    assert np.median(surface_scores(fit, long)) > np.quantile(surface_scores(fit, test), 0.9)
    assert length_correlation(np.array([1.0, 2.0, 3.0]), ["a", "a b", "a b c"]) == pytest.approx(1)
    assert length_correlation(np.array([1.0, 2.0]), ["a b", "c d"]) is None


def test_a_count_that_never_varies_hides_no_other() -> None:
    fit = [f"What is {n} plus {n + 1}?" for n in range(10, 60)]
    alike = surface_scores(fit, [f"What is {n} plus {n + 1}?" for n in range(60, 90)])
    longer = surface_scores(fit, [f"What is {10**n} plus {n + 1}, Tom?" for n in range(5, 9)])
    assert longer.min() > alike.max()
