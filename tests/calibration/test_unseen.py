"""The rate on unseen templates: by hand, and against what new templates really meet."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from calibration.unseen import Rows, UnseenRate, unseen_rate
from detector import conformal
from detector.errors import CalibrationError, TooFewQuestionsError

Points = NDArray[np.float64]


def distances(points: Points, fit: Rows, test: Rows) -> Points:
    """Squared Mahalanobis distances from what was fitted on."""
    centred = points[test] - points[fit].mean(0)
    inverse = np.linalg.inv(np.cov(points[fit].T) + 1e-3 * np.eye(points.shape[1]))
    squared: Points = (centred @ inverse * centred).sum(1)
    return squared


def draw(generator: np.random.Generator, n: int, size: int, between: float) -> Points:
    """Questions of `n` templates, template after template, in 8 dimensions."""
    centres = between * generator.standard_normal((n, 1, 8))
    points: Points = (centres + generator.standard_normal((n, size, 8))).reshape(-1, 8)
    return points


def test_every_template_is_left_out_once_of_fit_and_threshold() -> None:
    labels = np.repeat([3, 1, 4, 15, 9, 2, 6], [1, 5, 9, 2, 6, 5, 3])
    calls: list[tuple[Rows, Rows]] = []

    def scores(fit: Rows, test: Rows) -> Points:
        calls.append((fit, test))
        return np.zeros(len(test))

    found = unseen_rate(labels.tolist(), scores, alpha=0.5)
    assert len(calls) == found.n_templates == 7
    assert found.shares == dict.fromkeys((3, 1, 4, 15, 9, 2, 6), 0.0)
    for fit, test in calls:
        assert not set(labels[fit]) & set(labels[test])
        assert len(fit) + len(test) == len(labels)
        # Of 6 others round(6 * 5 / 8) = 4 are fitted on; 2 and the one left out are scored.
        assert len(set(labels[fit])) == 4
    assert len({int(labels[test[-1]]) for _, test in calls}) == 7


def test_at_most_ten_folds() -> None:
    calls = []

    def scores(fit: Rows, test: Rows) -> Points:
        calls.append(fit)
        return test.astype(np.float64)

    assert unseen_rate(range(35), scores, alpha=0.5).n_templates == 35
    assert len(calls) == 10


def test_the_rate_is_of_templates_and_its_interval_honestly_wide() -> None:
    none = UnseenRate(dict.fromkeys(range(10), 0.0))
    assert none.rate == 0
    # 1 - 0.025^(1/10), however many questions there were.
    assert none.interval == pytest.approx((0, 0.308), abs=1e-3)
    some = UnseenRate({0: 1.0, 1: 0.5, 2: 0.0, 3: 0.0})
    assert some.rate == 0.375
    low, high = some.interval
    assert conformal.proportion_interval(1, 4)[0] < low < 0.375 < high
    assert UnseenRate({0: 1.0, 1: 1.0}).interval[1] == 1


def test_what_cannot_be_measured() -> None:
    def scores(fit: Rows, test: Rows) -> Points:
        return np.zeros(len(test))

    with pytest.raises(CalibrationError) as caught:
        unseen_rate([0, 0, 7, 7], scores, alpha=0.05)
    assert caught.value.message.startswith("the questions are of 2 templates: ")
    with pytest.raises(TooFewQuestionsError, match="of 3 templates"):
        unseen_rate([row % 10 for row in range(400)], scores, alpha=0.05, weighted=True)


def test_the_rate_is_what_new_templates_meet_and_no_holdout_shows() -> None:
    """12 templates of 30 questions, drawn 150 times, each against 40 new templates."""
    n, size, alpha, repeats = 12, 30, 0.05, 150
    generator = np.random.default_rng(0)
    rates, intervals, really, held_out = [], [], [], []
    for _ in range(repeats):
        points = draw(generator, n, size, between=4)
        found = unseen_rate(
            np.repeat(np.arange(n), size).tolist(), partial(distances, points), alpha
        )
        rates.append(found.rate)
        intervals.append(found.interval)
        # As a fold has it: of 10 others 6 to fit and 4 for the threshold.
        new = np.concatenate([points, draw(generator, 40, 1, between=4)])
        rows = np.arange(len(new))
        scores = distances(new, rows[: 6 * size], rows[6 * size :])
        really.append(flagged(scores[: 4 * size], scores[-40:], alpha))
        mixed = generator.permutation(n * size)
        scores = distances(points, mixed[:180], mixed[180:])
        held_out.append(flagged(scores[:108], scores[108:], alpha))
    truth = float(np.mean(really))
    # Both rates vary by some 0.08 from one draw to the next: 0.08 * sqrt(2 / 150) = 0.0092, times
    # 3. The rows of a template are so alike that alpha is broken more than twice over.
    assert np.mean(rates) == pytest.approx(truth, abs=0.028)
    assert truth > 0.1
    # The holdout of the same templates keeps alpha: 0.03 / sqrt(150) = 0.0025, times 4.
    assert np.mean(held_out) <= alpha + 0.01
    # Shares between 0 and 1 vary less than the interval allows for: it misses no more than 5 %,
    # with a standard deviation of sqrt(0.05 * 0.95 / 150) = 0.018, times 3.
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.95 - 0.054


def flagged(calibration: Points, scores: Points, alpha: float) -> float:
    threshold = conformal.threshold(torch.from_numpy(calibration).sort().values, alpha)
    return float((scores > threshold).mean())


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
def test_the_interval_is_near_nominal_where_templates_are_flagged_whole(rate: float) -> None:
    n = 30
    covered = 0.0
    for count in range(n + 1):
        low, high = UnseenRate({t: float(t < count) for t in range(n)}).interval
        covered += float(binom.pmf(count, n, rate)) * (low <= rate <= high)
    # Exact, not drawn. Counts are whole: one more or less is worth up to 4.5 % at 3 of 30.
    assert 0.95 <= covered <= 0.995


def test_the_weighted_threshold_is_kept_on_unseen_templates() -> None:
    alpha, repeats = 0.1, 100
    generator = np.random.default_rng(0)
    rates = []
    for _ in range(repeats):
        points = draw(generator, 40, 8, between=4)
        labels = np.repeat(np.arange(40), 8).tolist()
        rates.append(unseen_rate(labels, partial(distances, points), alpha, weighted=True).rate)
    # Forty templates' rate varies by less than 0.06 between draws: 0.006 of their mean, times 3.
    assert np.mean(rates) <= alpha + 0.018
