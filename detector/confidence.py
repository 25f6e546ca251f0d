"""Scores that need no in-distribution data: pure functions of one trajectory.

Higher = more OOD throughout; where a paper's number is higher for answers that are more
likely right, the function returns its negative and says so.
"""

from __future__ import annotations

import torch
from torch import Tensor


def chain_of_embedding(trajectories: Tensor) -> tuple[Tensor, Tensor]:
    """Step lengths M_l = |y_{l+1} - y_l| and angles A_l between them, both (n, L).

    Chain of Embedding, arXiv 2410.13640: magnitude and angle changes, radians.
    """
    before, after = trajectories[:, :-1].double(), trajectories[:, 1:].double()
    lengths = (after - before).norm(dim=2)
    return lengths, _angle(before, after)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    cosine: Tensor = torch.nn.functional.cosine_similarity(a, b, dim=-1)
    return cosine.clamp(-1, 1).arccos()


def coe_r(trajectories: Tensor) -> Tensor:
    """Minus CoE-R, (n, L + 1, d) -> (n,).

    CoE-R (arXiv 2410.13640) is the mean of M_l / |y_L - y_0| minus the mean of A_l over the
    angle between y_0 and y_L.
    """
    lengths, angles = chain_of_embedding(trajectories)
    first, last = trajectories[:, 0].double(), trajectories[:, -1].double()
    whole_length = (last - first).norm(dim=1)
    relative = lengths.mean(1) / whole_length - angles.mean(1) / _angle(first, last)
    score: Tensor = -relative
    return score.float()


def coe_c(trajectories: Tensor) -> Tensor:
    """Minus CoE-C, (n, L + 1, d) -> (n,): CoE-C is |mean_l M_l e^{i A_l}| (arXiv 2410.13640)."""
    lengths, angles = chain_of_embedding(trajectories)
    return -torch.polar(lengths, angles).mean(1).abs().float()
