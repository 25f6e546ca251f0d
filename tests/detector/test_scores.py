"""Scores against naive transcriptions of the definitions."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from detector.errors import CalibrationError
from detector.fit_split import FitSplit
from detector.gaussian import DiagonalGaussians, LayerGaussians
from detector.planes import Planes
from detector.scores import ORDERS, SCORES, mean_distance, volatility
from detector.trajectory import difference

Array = npt.NDArray[np.float64]
N_PLANES, D = 14, 12
GENERATOR = torch.Generator()


def trajectories(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, N_PLANES, D, generator=generator).cumsum(1) + 3


def gaussians_of(fit: torch.Tensor, rank: int | None = None) -> FitSplit:
    """With other questions for the contrast: the same, further away."""
    return FitSplit(Planes.of(fit), rank, Planes.of(fit + 1))


def naive_reference(fit: Array, trajectory: Array, order: int, max_order: int = 5) -> float:
    """TV score, layer by layer and coordinate by coordinate, as released with the paper."""
    mean, variance = fit.mean(0), fit.var(0)
    distances = []
    for layer in range(1, len(trajectory) - max_order - 1):
        coordinates = []
        for i in range(trajectory.shape[1]):
            state = centre = spread = 0.0
            for j in range(order + 1):
                sign = (-1) ** (order - j) * math.comb(order, j)
                state += sign * trajectory[layer + j, i]
                centre += sign * mean[layer + j, i]
                spread += math.comb(order, j) * variance[layer + j, i]
            coordinates.append((state - centre) ** 2 / spread)
        distances.append(math.sqrt(sum(c**2 for c in coordinates)))
    return float(np.mean([abs(b - a) for a, b in itertools.pairwise(distances)]))


@pytest.mark.parametrize("order", ORDERS)
def test_reference_variant_equals_the_released_definition(order: int) -> None:
    fit, new = trajectories(50, 0), trajectories(8, 1)
    fitted = SCORES["tv-reference"].fit(gaussians_of(fit), order)
    scores, distances = fitted.score(new), fitted.distances(new)
    assert distances.shape == (8, N_PLANES - 7)
    for score, trajectory in zip(scores, new, strict=True):
        expected = naive_reference(fit.double().numpy(), trajectory.double().numpy(), order)
        assert float(score) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_paper_variant_is_the_volatility_of_smoothed_distances(order: int) -> None:
    fit, new = trajectories(50, 0), trajectories(8, 1)
    fitted = SCORES["tv-paper"].fit(gaussians_of(fit), order)
    scores, distances = fitted.score(new), fitted.distances(new)
    gaussians = LayerGaussians.fit(fit.unbind(1)).difference(order)
    f = gaussians.distances(difference(new, order)).double().numpy()
    assert f.shape == (8, N_PLANES - order) == distances.shape
    for row, score in zip(f, scores, strict=True):
        n = len(row) - 1
        expected = sum(abs(row[layer] - row[layer - 1]) for layer in range(1, n + 1)) / n
        assert float(score) == pytest.approx(expected, rel=1e-5)


def test_difference_is_the_binomial_sum() -> None:
    y = trajectories(1, 2)[0].double()
    for order in ORDERS:
        for layer in range(N_PLANES - order):
            expected = sum(
                (-1) ** (order + i) * math.comb(order, i) * y[layer + i] for i in range(order + 1)
            )
            torch.testing.assert_close(difference(y, order)[layer], expected)


def test_summaries_by_hand() -> None:
    distances = torch.tensor([[1.0, 4.0, 2.0]])
    assert mean_distance(distances).tolist() == [pytest.approx(7 / 3)]
    assert volatility(distances).tolist() == [2.5]


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.kind])
def test_a_far_trajectory_scores_higher(name: str) -> None:
    fit = trajectories(80, 0)
    score = SCORES[name].fit(gaussians_of(fit))
    inside = score.score(trajectories(40, 1))
    outside = score.score(trajectories(40, 2) * 4)
    assert float(outside.min()) > float(inside.median())


EVERY_SCORE = [(name, order) for name, score in SCORES.items() for order in score.orders]


@pytest.mark.parametrize(("name", "order"), EVERY_SCORE)
def test_fewest_layers_are_enough_and_one_less_is_refused(name: str, order: int) -> None:
    score = SCORES[name]
    # One distance to average, two for one change, and layers 1..L-6 as released.
    known = {"mahalanobis": max(1, order), "tv-paper": order + 1, "tv-reference": 8}
    assert score.fewest_layers(order) == known.get(name, 1)
    n_planes = score.fewest_layers(order) + 1
    fit, new = (torch.randn(30, n_planes, D, generator=GENERATOR.manual_seed(n)) for n in (0, 1))
    values = score.fit(gaussians_of(fit), order).score(new)
    assert values.isfinite().all()
    assert (values.var() > 0) == (name != "coe-r")
    with pytest.raises(CalibrationError, match=rf"L = {n_planes - 2}: use") as caught:
        score.fit(gaussians_of(fit[:, :-1]), order)
    assert caught.value.param == "score"
    if name != "tv-reference":
        assert caught.value.message == (
            f"score {name!r} of order {order} needs L >= {n_planes - 1} layers and the model has "
            f"L = {n_planes - 2}: use a lower order"
        )


@pytest.mark.parametrize("name", SCORES)
def test_orders_that_a_score_has(name: str) -> None:
    orders = [order for known, order in EVERY_SCORE if known == name]
    ordered = name in {"mahalanobis", "tv-paper", "tv-reference"}
    assert orders == ([0, 1, 2, 3, 4, 5] if ordered else [0])
    without = orders[-1] + 1
    with pytest.raises(CalibrationError) as caught:
        SCORES[name].fit(gaussians_of(trajectories(9, 0)), without)
    assert caught.value.message == f"score {name!r} has no order {without}: leave the order out"
    assert caught.value.param == "order"


@pytest.mark.parametrize(("name", "order"), EVERY_SCORE)
def test_kind_is_that_of_what_is_learned(name: str, order: int) -> None:
    score = SCORES[name]
    gaussians = gaussians_of(trajectories(30, 0), rank=4)
    fitted = score.fit(gaussians, order)
    new = trajectories(5, 1)
    assert fitted.name == score.name == name
    if score.kind is None:
        assert fitted.learned is None
        assert fitted.distances(new).shape == (5, 0)
    else:
        assert type(fitted.learned) is score.kind
    assert torch.equal(fitted.score(new), fitted.summary(new, fitted.distances(new)))


def test_mahalanobis_scores_by_their_distances() -> None:
    fit, new = trajectories(50, 0), trajectories(8, 1)
    per_layer = LayerGaussians.fit(fit.unbind(1)).distances(new)
    gaussians = gaussians_of(fit)
    mean, last = (SCORES[name].fit(gaussians) for name in ("mahalanobis", "mahalanobis-last"))
    assert torch.equal(mean.score(new), per_layer.mean(1))
    torch.testing.assert_close(last.score(new), per_layer[:, -1])
    assert last.distances(new).shape == (8, 1)


def test_reference_variant_says_what_it_cannot_use() -> None:
    with pytest.raises(CalibrationError) as caught:
        SCORES["tv-reference"].fit(gaussians_of(trajectories(9, 0)[:, :6]))
    assert caught.value.message == (
        "score 'tv-reference' compares layers 1..L-6 and the model has L = 5: use 'tv-paper'"
    )
    assert caught.value.param == "score"
    for layer in (1, 4, N_PLANES - 1):
        flat = trajectories(9, 0)
        flat[:, layer, 3] = 1
        with pytest.raises(CalibrationError) as caught:
            SCORES["tv-reference"].fit(gaussians_of(flat))
        assert caught.value.message == (
            "score 'tv-reference' divides by each coordinate's variance, and one is 0 in the fit "
            "split: collect more questions or use 'tv-paper'"
        )
        assert caught.value.param == "score"
    embedding = trajectories(9, 0)
    embedding[:, 0] = 1
    # Layer 0, the same token for all questions, has no part in it.
    fitted = SCORES["tv-reference"].fit(gaussians_of(embedding))
    assert fitted.score(trajectories(3, 1)).isfinite().all()


def test_diagonal_variance_is_the_population_s() -> None:
    fit = trajectories(20, 0)
    gaussians = DiagonalGaussians.fit(fit.unbind(1))
    np.testing.assert_allclose(gaussians.variance, fit.double().numpy().var(0), rtol=1e-6)
