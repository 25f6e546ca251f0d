"""Clusters of trajectories: kinds of question, as the model tells them apart.

A bare sum and a story score differently though both are in scope. A score is standardised within
the cluster that its own trajectory is nearest to, so that none pays for another; serving needs no
label for that. Conformal calibration comes after it: whatever the clusters are, the false-alarm
rate over all questions holds (Romano, Patterson and Candes, 2019, "Conformalized quantile
regression", arXiv 1905.03222, for the argument).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clusters:
    """Centres in a plane's leading directions.

    plane   ()      the layer
    mean    (d,)
    basis   (k, d)  orthonormal rows
    centres (c, k)
    """

    plane: Tensor
    mean: Tensor
    basis: Tensor
    centres: Tensor

    def __len__(self) -> int:
        return len(self.centres)

    def assign(self, trajectories: Tensor) -> Tensor:
        """The nearest centre's place, -1 where there is none: (n, L + 1, d) -> (n,)."""
        states = (trajectories[:, int(self.plane)] - self.mean) @ self.basis.T
        distances = torch.cdist(states, self.centres)
        # To argmin a NaN is the least of all.
        return distances.argmin(1).where(distances.isfinite().all(1), -1)

    def to(self, device: torch.device) -> Clusters:
        fields = (self.plane, self.mean, self.basis, self.centres)
        return Clusters(*(tensor.to(device) for tensor in fields))
