"""Trajectories of many questions, one layer at a time, so that they need not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_BATCH = 512


@dataclass(frozen=True)
class Planes:
    """Trajectories of n questions that may lie on disk.

    A plane is the states (n, d) of all questions at one layer. `read(plane, rows)` returns
    some questions' rows of a plane; `rows` (n,) says which ones these are.
    """

    read: Callable[[int, Tensor], Tensor]
    rows: Tensor
    n_planes: int

    @classmethod
    def of(cls, trajectories: Tensor) -> Planes:
        """Of trajectories in memory, (n, L + 1, d)."""
        n, n_planes, _ = trajectories.shape
        return cls(lambda plane, rows: trajectories[rows, plane], torch.arange(n), n_planes)

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def __getitem__(self, plane: int) -> Tensor:
        return self.read(plane, self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        """The planes (n, d), layer 0 first."""
        return (self[plane] for plane in range(self.n_planes))

    def select(self, keep: Tensor) -> Planes:
        """The questions that `keep` (n,), boolean or places, picks."""
        return Planes(self.read, self.rows[keep], self.n_planes)

    def batches(self) -> Iterator[Tensor]:
        """The same trajectories (up to 512, L + 1, d), in order; one empty batch if none."""
        for rows in self.rows.split(_BATCH):
            yield torch.stack([self.read(plane, rows) for plane in range(self.n_planes)], 1)
