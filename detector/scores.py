"""Scores of trajectories: pure functions beneath, one fitted object above.

Higher = more OOD. A function takes a batch and returns one number a trajectory:

- `mean_distance`: squared Mahalanobis distance averaged over layers.
- `volatility`: TV score, the mean absolute change of a distance from layer to layer.
- `reference_distances`: the distance in the code released with the TV paper.

`FittedScore` binds one of them to what it learned from the fit split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from detector.confidence import coe_c, coe_r
from detector.errors import CalibrationError
from detector.gaussian import DiagonalGaussians, GaussianFits, LayerGaussians
from detector.trajectory import difference

ORDERS = range(6)
"""Orders of differential smoothing, k = 0..5 (arXiv 2405.14039)."""

_REFERENCE_MAX_ORDER = 5


def mean_distance(distances: Tensor) -> Tensor:
    """Mean over layers of squared Mahalanobis distances: (n, planes) -> (n,)."""
    return distances.mean(1)


def volatility(distances: Tensor) -> Tensor:
    """TV score: mean over l of |f(y_l) - f(y_{l-1})|, (n, planes) -> (n,).

    Trajectory volatility of arXiv 2405.14039 (NeurIPS 2024); f is the distance to the
    layer's in-distribution Gaussian.
    """
    return distances.diff(dim=1).abs().mean(1)


def reference_distances(trajectories: Tensor, gaussians: DiagonalGaussians, order: int) -> Tensor:
    """Distances as the code released with arXiv 2405.14039 takes them.

    (n, L + 1, d) -> (n, L - 6): sqrt(sum_i z_i^4) with z_i the standardised coordinate of
    the k-th difference, over layers 1..L-6 whatever the order (score_utils.py there).
    Means differ, variances add (`D_{k+1} = D_k[1:] - D_k[:-1]`,
    `V_{k+1} = V_k[1:] + V_k[:-1]`). Pooling is ours, not theirs: their trajectory mixes
    in the first prompt token.
    """
    centred = difference((trajectories - gaussians.mean)[:, 1:].double(), order)
    variance = gaussians.variance[1:].double()
    for _ in range(order):
        variance = variance[1:] + variance[:-1]
    n_planes = trajectories.shape[1] - _REFERENCE_MAX_ORDER - 2
    squares = centred[:, :n_planes].square() / variance[:n_planes]
    distances: Tensor = torch.linalg.vector_norm(squares, dim=2)
    return distances.float()


ScoreName = Literal["mahalanobis", "mahalanobis-last", "tv-paper", "tv-reference", "coe-r", "coe-c"]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)


@dataclass(frozen=True)
class FittedScore:
    """A score and the in-distribution Gaussians it measures against, if it has any.

    "mahalanobis": `mean_distance` under Ledoit-Wolf covariances (per layer: Lee et al.,
    2018, arXiv 1807.03888; the mean over layers is ours). "mahalanobis-last": the last
    layer's distance alone; at the look "prompt-mean" it is the input-embedding baseline, at
    "end" the output-embedding one (Ren et al., 2023, arXiv 2209.15558). "tv-paper":
    `volatility` of the same distances, the paper's definition. "tv-reference": `volatility`
    of `reference_distances`, the paper's released code. "coe-r", "coe-c": see
    `detector.confidence`.
    """

    name: ScoreName
    order: int
    gaussians: LayerGaussians | DiagonalGaussians | None

    @classmethod
    def fit(cls, name: ScoreName, gaussians: GaussianFits, order: int = 0) -> FittedScore:
        """Take what the score needs from one look's Gaussians.

        `order` is that of differential smoothing. Raises CalibrationError when the
        trajectories cannot carry the score, or the score has no orders.
        """
        if order and name in ("mahalanobis-last", "coe-r", "coe-c"):
            raise CalibrationError(
                f"score {name!r} has no order {order}: leave the order out", param="order"
            )
        if name in ("coe-r", "coe-c"):
            return cls(name, 0, None)
        if name == "mahalanobis-last":
            return cls(name, 0, gaussians.last)
        if name != "tv-reference":
            return cls(name, order, gaussians.of_order(order))
        if gaussians.n_layers < 8:
            raise CalibrationError(
                f"score 'tv-reference' compares layers 1..L-6 and the model has L = "
                f"{gaussians.n_layers}: use 'tv-paper'",
                param="score",
            )
        if not bool((gaussians.diagonal.variance[1:] > 0).all()):
            raise CalibrationError(
                "score 'tv-reference' divides by each coordinate's variance, and one is 0 in "
                "the fit split: collect more questions or use 'tv-paper'",
                param="score",
            )
        return cls(name, order, gaussians.diagonal)

    def score(self, trajectories: Tensor) -> Tensor:
        """(n, L + 1, d) -> scores (n,)."""
        return self.summary(trajectories, self.distances(trajectories))

    def distances(self, trajectories: Tensor) -> Tensor:
        """(n, L + 1, d) -> the distances that the score sums up, (n, planes).

        Equal for scores of one order that share their Gaussians. A score that measures no
        distances has none: (n, 0).
        """
        if self.gaussians is None:
            return trajectories.new_empty(len(trajectories), 0)
        if isinstance(self.gaussians, DiagonalGaussians):
            return reference_distances(trajectories, self.gaussians, self.order)
        if self.name == "mahalanobis-last":
            return self.gaussians.distances(trajectories[:, -1:])
        return self.gaussians.distances(difference(trajectories, self.order))

    def summary(self, trajectories: Tensor, distances: Tensor) -> Tensor:
        """The score (n,) of trajectories whose `distances` are known."""
        if self.name == "coe-r":
            return coe_r(trajectories)
        if self.name == "coe-c":
            return coe_c(trajectories)
        return (volatility if self.name.startswith("tv-") else mean_distance)(distances)
