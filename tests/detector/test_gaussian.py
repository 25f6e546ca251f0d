"""Factored covariances against scikit-learn and against dense algebra written out."""

import math

import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from detector.errors import CalibrationError
from detector.fit_split import FitSplit
from detector.gaussian import LayerGaussians, ledoit_wolf_shrinkage
from detector.planes import Planes


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    """Correlated rows with eigenvalues over three decades and a mean far from 0."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -3, d, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    plain = torch.randn(n, d, generator=generator, dtype=torch.float64)
    correlated: Tensor = plain * scales.sqrt() @ rotation + 5
    return correlated.float()


@pytest.mark.parametrize(("n", "d"), [(40, 96), (96, 96), (300, 64), (5, 8), (700, 300)])
def test_distances_equal_scikit_learn(n: int, d: int) -> None:
    sample, new = rows(n, d), rows(50, d, seed=1)
    reference = LedoitWolf().fit(sample.double().numpy())
    centred = sample.double() - sample.double().mean(0)
    assert ledoit_wolf_shrinkage(centred) == pytest.approx(reference.shrinkage_, rel=1e-9)
    expected = torch.from_numpy(reference.mahalanobis(new.double().numpy()))
    distances = LayerGaussians.fit([sample]).distances(new[:, None])[:, 0].double()
    assert ((distances - expected).abs() / expected).max() < 1e-4


def test_a_mean_far_from_0_costs_no_precision() -> None:
    sample, new = rows(300, 64) + 1000, rows(20, 64, seed=1) + 1000
    expected = LedoitWolf().fit(sample.double().numpy()).mahalanobis(new.double().numpy())
    distances = LayerGaussians.fit([sample]).distances(new[:, None])[:, 0].double()
    # Rounding the fitted mean to float32 costs 2e-5; a float32 sum over the rows costs 1e-4.
    assert (distances / torch.from_numpy(expected) - 1).abs().max() < 5e-5


def test_truncated_rank_keeps_the_top_and_averages_the_rest() -> None:
    sample, new, rank = rows(300, 64), rows(20, 64, seed=1), 10
    covariance = torch.from_numpy(LedoitWolf().fit(sample.double().numpy()).covariance_)
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    eigenvalues[:-rank] = eigenvalues[:-rank].mean()
    dense = vectors @ torch.diag(eigenvalues) @ vectors.T
    z = new.double() - sample.double().mean(0)
    expected = (z @ torch.linalg.inv(dense) * z).sum(1)
    fitted = LayerGaussians.fit([sample], rank)
    assert fitted.rank == rank
    distances = fitted.distances(new[:, None])[:, 0].double()
    assert ((distances - expected).abs() / expected).max() < 1e-4


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("rank", [None, 5])
def test_difference_equals_the_paper_s_rule_in_dense_form(order: int, rank: int | None) -> None:
    d, n_planes = 24, 8
    planes = [rows(60, d, seed=plane) for plane in range(n_planes)]
    gaussians = LayerGaussians.fit(planes, rank)
    dense = []
    for plane in range(n_planes):
        weight = gaussians.weight[plane].double()
        c = gaussians.variance[plane].double()
        basis = gaussians.basis[plane].double()
        spread = c * weight / (1 - weight)
        dense.append(c * torch.eye(d) + basis.T @ torch.diag(spread) @ basis)
    new = torch.stack([rows(7, d, seed=100 + plane) for plane in range(n_planes)], 1).double()
    means = gaussians.mean.double()
    smoothed = gaussians.difference(order)
    assert len(smoothed.mean) == n_planes - order
    trajectories = new.diff(n=order, dim=1) if order else new
    actual = smoothed.distances(trajectories.float()).double()
    for plane in range(n_planes - order):
        terms = range(order + 1)
        covariance = sum(math.comb(order, i) * dense[plane + i] for i in terms)
        z = sum(
            (-1) ** (order + i) * math.comb(order, i) * (new[:, plane + i] - means[plane + i])
            for i in terms
        )
        assert isinstance(covariance, Tensor)
        assert isinstance(z, Tensor)
        expected = (z @ torch.linalg.inv(covariance) * z).sum(1)
        assert ((actual[:, plane] - expected).abs() / expected).max() < 1e-4


def test_large_sides_use_the_randomised_spectrum() -> None:
    """Beyond the exact size the leading directions still decide the distance."""
    sample = rows(1600, 1700)
    fitted = LayerGaussians.fit([sample], rank=64)
    centred = sample.double() - sample.double().mean(0)
    eigenvalues = torch.linalg.eigvalsh(centred @ centred.T).flip(0)[:64] / len(sample)
    shrinkage = ledoit_wolf_shrinkage(centred)
    shrunk = (1 - shrinkage) * eigenvalues + shrinkage * centred.square().sum() / (1600 * 1700)
    actual = fitted.variance[0] / (1 - fitted.weight[0])
    # This spectrum is nearly flat at the cut (0.4 % from one eigenvalue to the next), the
    # hardest case for a range finder; with twice the columns it stays within 3 %.
    assert ((actual - shrunk).abs() / shrunk).max() < 0.03
    assert torch.isfinite(fitted.distances(sample[:10, None])).all()
    # Whatever has been drawn before, and without a trace in what is drawn after.
    torch.rand(1)
    state = torch.random.get_rng_state()
    again = LayerGaussians.fit([sample], rank=64)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(again.basis, fitted.basis)


def test_a_plane_that_does_not_vary_adds_no_distance() -> None:
    constant = torch.full((30, 16), 0.1)
    varying = rows(30, 16)
    new = torch.stack([constant[:4] + 1, rows(4, 16, seed=1)], 1)
    both = LayerGaussians.fit([constant, varying]).distances(new)
    assert torch.equal(both[:, 0], torch.zeros(4))
    alone = LayerGaussians.fit([varying]).distances(new[:, 1:])
    torch.testing.assert_close(both[:, 1:], alone)
    smoothed = LayerGaussians.fit([constant, varying]).difference(1)
    step = (rows(4, 16, seed=1) - constant[:4])[:, None]
    expected = LayerGaussians.fit([varying - constant]).distances(step)
    torch.testing.assert_close(smoothed.distances(step), expected, rtol=1e-3, atol=0)


def test_a_plane_of_zeros_adds_no_distance_at_any_rank() -> None:
    zeros, varying, new = torch.zeros(30, 16), rows(30, 16), rows(4, 16, seed=1)
    for rank in (None, 4):
        fitted = LayerGaussians.fit([zeros, varying], rank)
        alone = LayerGaussians.fit([varying], rank)
        distances = fitted.distances(torch.stack([new, new], 1))
        assert torch.equal(distances[:, 0], torch.zeros(4))
        torch.testing.assert_close(distances[:, 1:], alone.distances(new[:, None]))


def test_what_varies_by_rounding_alone_does_not_vary() -> None:
    up = torch.rand(30, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    plain = torch.full((30, 16), 0.1)
    rounded = LayerGaussians.fit([torch.where(up, plain.nextafter(torch.tensor(1.0)), plain)])
    assert float(rounded.variance) == 0
    assert torch.equal(rounded.distances(rows(4, 16)[:, None]), torch.zeros(4, 1))
    assert float(LayerGaussians.fit([torch.where(up, plain * (1 + 1e-5), plain)]).variance) > 0


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(CalibrationError) as caught:
        LayerGaussians.fit([rows(2, 4)])
    assert caught.value.message == (
        "2 trajectories in the fit split: a covariance needs at least 3, collect more questions"
    )


def test_a_difference_has_twice_the_rank() -> None:
    """A fit's rank caps a layer's low-rank part, and twice the rank that of a difference's."""
    trajectories = torch.stack([rows(60, 24, seed=plane) for plane in range(4)], 1)
    fits = FitSplit(Planes.of(trajectories), rank=5)
    assert [fits.of_order(order).rank for order in range(3)] == [5, 10, 10]
    assert fits.last.rank == 5
    expected = LayerGaussians.fit(trajectories.unbind(1), 5).difference(2, 10)
    step = trajectories[:3].diff(n=2, dim=1)
    assert torch.equal(fits.of_order(2).distances(step), expected.distances(step))
    whole = FitSplit(Planes.of(trajectories))
    assert [whole.of_order(order).rank for order in range(3)] == [23, 23, 23]
    assert whole.last.rank == 23
    assert whole.n_layers == 3


def test_gaussians_are_fitted_once() -> None:
    trajectories = torch.stack([rows(60, 24, seed=plane) for plane in range(4)], 1)
    read = []

    def plane_of(plane: int, places: Tensor) -> Tensor:
        read.append(plane)
        return trajectories[places, plane]

    fits = FitSplit(Planes(plane_of, torch.arange(60), 4), rank=5)
    for order in (2, 0, 1):
        fits.of_order(order)
    assert read == [0, 1, 2, 3]
    assert fits.of_order(1) is fits.of_order(1)
    assert fits.last is fits.last
    assert fits.diagonal is fits.diagonal
    torch.testing.assert_close(fits.last.mean[0], trajectories[:, 3].mean(0))


@pytest.mark.parametrize(("n", "d"), [(5, 40), (40, 5), (3, 3)])
def test_full_rank_is_one_below_the_smaller_side(n: int, d: int) -> None:
    """n centred rows span n - 1 directions, and one direction is left for the variance c."""
    assert LayerGaussians.fit([rows(n, d)]).rank == min(n, d) - 1
    constant = LayerGaussians.fit([torch.full((n, d), 0.1)])
    assert constant.rank == min(n, d) - 1
    assert float(constant.variance) == 0


def test_shrinkage_lies_between_0_and_1() -> None:
    axes = torch.cat([torch.eye(4), -torch.eye(4)]).double()
    assert ledoit_wolf_shrinkage(axes) == 1
    for seed in range(20):
        direction = rows(1, 8, seed).double()
        shrinkage = ledoit_wolf_shrinkage(torch.cat([direction, -direction] * 3))
        assert 0 <= shrinkage < 1e-12
    assert ledoit_wolf_shrinkage(torch.zeros(8, 4).double()) == 1
    isotropic = torch.randn(10, 40, 8, generator=torch.Generator().manual_seed(0)).double()
    found = [ledoit_wolf_shrinkage(sample - sample.mean(0)) for sample in isotropic]
    expected = [LedoitWolf().fit(sample.numpy()).shrinkage_ for sample in isotropic]
    assert found == pytest.approx(expected, rel=1e-9)
    assert max(found) == 1
    few = rows(4, 50).double()
    assert 0 < ledoit_wolf_shrinkage(few - few.mean(0)) <= 1
