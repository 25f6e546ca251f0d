"""The contrast: how a trajectory differs between questions in scope and others.

A logistic regression on the states of a few layers, fitted once and kept as one direction a
layer. Its logit is the log-likelihood ratio of "other" to "in scope" wherever that is linear in
the states, as it is for Gaussians of one covariance (Hastie, Tibshirani and Friedman, 2009,
section 4.4). Against other questions' Gaussian itself (Ren et al., 2021, "A simple fix to
Mahalanobis distance", arXiv 2106.09022) it needs no covariance of either.

Other questions give it power and nothing else: the threshold on it is learned from questions in
scope alone, so the false-alarm rate holds whatever the other questions were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from detector.errors import CalibrationError
from detector.planes import Planes

Weights = tuple[Tensor, Tensor]
"""What each question in scope (n,) and each other one (m,) weighs, in any unit."""

_N_PLANES = 7
# The first fifth of a model's layers still spells words. Of the rest, evenly spaced ones say
# what all of them do.
_FROM = 0.2
# On the mean square of the standardised weights. From a third to ten times of it, nothing changes
# by a point.
_PENALTY = 2e-3
_MAX_STEPS = 500


@dataclass(frozen=True)
class Contrast:
    """A linear function of a trajectory.

    planes (p,)     the layers it looks at
    mean   (p, d)   midway between questions in scope and others
    weight (p, d)   per unit of hidden state
    bias   ()       logit at the mean
    """

    planes: Tensor
    mean: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, inside: Planes, outside: Planes, weights: Weights | None = None) -> Contrast:
        """Learn it from questions in scope and others; both sides weigh the same, and within a
        side all questions, or each as `weights` say.

        Raises CalibrationError when a side has no trajectory.
        """
        if not inside.n_rows or not outside.n_rows:
            raise CalibrationError(
                f"a contrast needs questions on both sides and has {inside.n_rows} in scope and "
                f"{outside.n_rows} others: collect the missing ones",
                param="contrast",
            )
        planes = _planes(inside.n_planes - 1)
        states = [torch.cat([inside[plane], outside[plane]]).float() for plane in planes]
        is_other = torch.arange(len(states[0])) >= inside.n_rows
        ours, theirs = weights or (torch.ones(inside.n_rows), torch.ones(outside.n_rows))
        share = torch.cat([ours / ours.sum(), theirs / theirs.sum()]) / 2
        means = torch.stack([share @ plane for plane in states])
        deviations = torch.stack(
            [
                (share @ (plane - mean).square()).sqrt()
                for plane, mean in zip(states, means, strict=True)
            ]
        )
        # A coordinate that never changes says nothing.
        steady = deviations <= 1e-6 * means.abs() + 1e-12
        scale = torch.where(steady, 0.0, 1 / deviations.masked_fill(steady, 1.0))
        scale /= math.sqrt(scale.numel())
        rows = torch.cat(
            [(plane - mean) * by for plane, mean, by in zip(states, means, scale, strict=True)], 1
        )
        del states
        weight, bias = _logistic(rows, is_other.float(), share)
        return cls(torch.tensor(planes), means, weight.view_as(scale) * scale, bias)

    def contributions(self, trajectories: Tensor) -> Tensor:
        """What each layer adds to the logit: (n, L + 1, d) -> (n, p)."""
        centred = trajectories[:, self.planes] - self.mean
        return (centred * self.weight).sum(2) + self.bias / len(self.planes)

    def to(self, device: torch.device) -> Contrast:
        fields = (self.planes, self.mean, self.weight, self.bias)
        return Contrast(*(tensor.to(device) for tensor in fields))


def _planes(n_layers: int) -> list[int]:
    """Layers evenly spaced from a fifth of the depth to the last but one."""
    low, high = max(1, round(_FROM * n_layers)), max(1, n_layers - 1)
    spaced = [round(low + (high - low) * i / (_N_PLANES - 1)) for i in range(_N_PLANES)]
    return spaced[:1] + [after for before, after in pairwise(spaced) if after > before]


def _logistic(rows: Tensor, labels: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (features,) and bias () of the penalised logistic regression, by L-BFGS."""
    n_features = rows.shape[1]
    weight, bias = torch.zeros(n_features), torch.zeros(())
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=_MAX_STEPS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        """With its gradient written out: whoever fits may have switched autograd off."""
        logits = rows @ weight + bias
        excess = share * (logits.sigmoid() - labels)
        weight.grad = rows.T @ excess + 2 * _PENALTY * weight / n_features
        bias.grad = excess.sum()
        losses = torch.nn.functional.softplus(logits) - labels * logits
        return share @ losses + _PENALTY * weight.square().sum() / n_features

    optimiser.step(loss)
    return weight, bias
