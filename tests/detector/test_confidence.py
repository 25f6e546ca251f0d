"""Scores without in-distribution data, against naive transcriptions."""

import math

import pytest
import torch

from detector.confidence import coe_c, coe_r


def norm(v: list[float]) -> float:
    return math.sqrt(sum(x * x for x in v))


def angle(a: list[float], b: list[float]) -> float:
    cosine = sum(x * y for x, y in zip(a, b, strict=True)) / (norm(a) * norm(b))
    return math.acos(max(-1.0, min(1.0, cosine)))


def naive_coe(trajectory: list[list[float]]) -> tuple[float, float]:
    """CoE-R and CoE-C of one trajectory, written out from arXiv 2410.13640."""
    n_steps = len(trajectory) - 1

    def step(a: list[float], b: list[float]) -> float:
        return norm([y - x for x, y in zip(a, b, strict=True)])

    lengths = [step(trajectory[i], trajectory[i + 1]) for i in range(n_steps)]
    angles = [angle(trajectory[i], trajectory[i + 1]) for i in range(n_steps)]
    z_length, z_angle = step(trajectory[0], trajectory[-1]), angle(trajectory[0], trajectory[-1])
    coe_r = sum(m / z_length - a / z_angle for m, a in zip(lengths, angles, strict=True)) / n_steps
    real = sum(m * math.cos(a) for m, a in zip(lengths, angles, strict=True)) / n_steps
    imaginary = sum(m * math.sin(a) for m, a in zip(lengths, angles, strict=True)) / n_steps
    return coe_r, math.hypot(real, imaginary)


def test_chain_of_embedding_equals_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    trajectories = torch.randn(6, 9, 12, generator=generator).cumsum(1)
    for trajectory, r, c in zip(
        trajectories, coe_r(trajectories), coe_c(trajectories), strict=True
    ):
        expected_r, expected_c = naive_coe(trajectory.double().tolist())
        assert float(r) == pytest.approx(-expected_r, rel=1e-5)
        assert float(c) == pytest.approx(-expected_c, rel=1e-5)


def test_opposite_states_have_an_angle() -> None:
    """Rounding may push a cosine past -1, where arccos has no value."""
    state = torch.full((1, 1, 3), 0.1)
    assert torch.isfinite(coe_c(torch.cat([state, -state, state], 1))).all()
