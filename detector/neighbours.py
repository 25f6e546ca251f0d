"""Neighbours: calibration questions that a question's trajectory lies near, kept to explain flags.

At each look the states of a few layers are whitened by questions in scope: centred on those of the
fit split, projected to the directions in which questions in scope and others vary most, and scaled
so that in them the covariance of questions in scope is that of a unit ball. There a Euclidean
distance is the Mahalanobis distance of two questions, averaged over the layers.

They explain and decide nothing: no score and no threshold knows of them. The questions kept are
conformal ones, which neither the detector nor the whitening was fitted to: a question that helped
to fit would lie nearer to itself than any that is served can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detector.errors import CalibrationError
from detector.gaussian import ledoit_wolf_shrinkage
from detector.planes import Planes
from detector.trajectory import Look
from detector.verdict import BAND_LEVELS

_DEPTHS = (0.5, 0.75)
_TINY = 1e-12


@dataclass(frozen=True)
class Space:
    """The whitened space of one look.

    layers (p,)       the layers it takes
    mean   (p, d)     of the fit split
    basis  (p, r, d)  orthonormal rows, in half precision
    scale  (p, r)     by which a coordinate along each is multiplied
    """

    layers: Tensor
    mean: Tensor
    basis: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, inside: Planes, background: Planes | None, rank: int) -> Space:
        """Of questions in scope, in directions of theirs and of the background's alike.

        Raises CalibrationError for fewer than 3 questions that got to the look.
        """
        inside = _reached(inside)
        outside = None if background is None else _reached(background)
        if inside.n_rows < 3:
            raise CalibrationError(
                f"{inside.n_rows} questions of the fit split got to a look, and neighbours need 3: "
                "collect more questions, or leave them out with --neighbours 0",
                param="neighbours",
            )
        layers = _layers(inside.n_planes - 1)
        fits = [
            _whitening(inside[layer], None if outside is None else outside[layer], rank)
            for layer in layers
        ]
        mean, basis, scale = (torch.stack(column) for column in zip(*fits, strict=True))
        # So that questions in scope lie at a root mean square of 1 from the middle.
        n_coordinates = scale.count_nonzero().clamp(min=1)
        return cls(torch.tensor(layers), mean, basis.half(), scale / n_coordinates.sqrt())

    def place(self, trajectories: Tensor) -> Tensor:
        """Where trajectories lie: (n, L + 1, d) -> (n, p * r)."""
        centred = (trajectories[:, self.layers].float() - self.mean).transpose(0, 1)
        along = (centred @ self.basis.float().transpose(1, 2)) * self.scale[:, None]
        return along.transpose(0, 1).flatten(1)

    def places(self, planes: Planes) -> Tensor:
        """The same of many questions, NaN of one that ended before the look."""
        return torch.cat([self.place(batch).cpu() for batch in planes.batches()])

    def to(self, device: torch.device) -> Space:
        return Space(*(t.to(device) for t in (self.layers, self.mean, self.basis, self.scale)))


@dataclass(frozen=True)
class LookNeighbours:
    """What is kept of one look.

    questions (n, k)  where calibration questions lie, in half precision
    kinds     (m, k)  where the middle of each kind of out-of-scope questions lies
    usual     (5,)    how far the questions' nearest others are, at the levels of a band
    """

    space: Space
    questions: Tensor
    kinds: Tensor
    usual: Tensor

    def distances(self, place: Tensor) -> Tensor:
        """To each question (n,) of a place (k,)."""
        return _distances(place[None], self.questions)[0]

    def kind_distances(self, place: Tensor) -> Tensor:
        """To the middle of each kind (m,)."""
        return _distances(place[None], self.kinds)[0]


@dataclass(frozen=True)
class Neighbours:
    """What is kept of each look of a detector. Rows stand for the questions and the kinds that the
    manifest names.
    """

    looks: Mapping[Look, LookNeighbours]

    def place(self, look: Look, trajectories: Tensor) -> Tensor | None:
        """Where trajectories (n, L + 1, d) lie at a look (n, k); None for one of none."""
        found = self.looks.get(look)
        return None if found is None else found.space.place(trajectories)

    def to(self, device: torch.device) -> Neighbours:
        """For trajectories on a device. Questions stay where explanations are worked out."""
        moved = {
            look: replace(found, space=found.space.to(device)) for look, found in self.looks.items()
        }
        return Neighbours(moved)


def usual_distances(questions: Tensor) -> Tensor:
    """The quantiles (5,) of each question's distance to the nearest other of them (n, k)."""
    levels = torch.tensor(BAND_LEVELS)
    if len(questions) < 2:
        return torch.zeros(len(levels))
    distances = _distances(questions, questions).fill_diagonal_(torch.inf)
    return torch.quantile(distances.amin(1), levels)


def look_neighbours(space: Space, questions: Tensor, kinds: Tensor) -> LookNeighbours:
    """Of questions and kinds that lie at places (n, k) and (m, k). Raises CalibrationError when a
    place is no number that is kept.
    """
    kept, means = questions.half(), kinds.half()
    if not bool(kept.isfinite().all() & means.isfinite().all()):
        raise CalibrationError(
            "a question lies too far from the others for its place to be kept: leave neighbours "
            "out with --neighbours 0",
            param="neighbours",
        )
    return LookNeighbours(space, kept, means, usual_distances(kept))


def _distances(places: Tensor, others: Tensor) -> Tensor:
    # Without the matrix product's shortcut, which rounds what is near to 0.
    return torch.cdist(
        places.float().cpu(), others.float(), compute_mode="donot_use_mm_for_euclid_dist"
    )


def _layers(n_layers: int) -> list[int]:
    """Half and three quarters up, and the last but one: lower ones spell words."""
    found = {max(1, round(depth * n_layers)) for depth in _DEPTHS} | {max(1, n_layers - 1)}
    return sorted(found)


def _reached(planes: Planes) -> Planes:
    """Without the rows of responses that ended before the look."""
    return planes.select(~planes[0][:, 0].isnan())


def _whitening(inside: Tensor, outside: Tensor | None, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """One layer's mean (d,), basis (r, d) and scale (r,); of a direction in which nothing varies
    the scale is 0.
    """
    mean = inside.double().mean(0)
    centred = inside.double() - mean
    spread = centred.T @ centred / len(centred)
    if outside is not None and outside.shape[0]:
        # Both sides about the point between their means, so that what parts them is a direction.
        between = (mean + outside.double().mean(0)) / 2
        sides = [side.double() - between for side in (inside, outside)]
        spread = sum((side.T @ side / len(side) for side in sides), start=0 * spread) / 2
    directions = torch.linalg.eigh(spread).eigenvectors.flip(1)[:, :rank]
    within = centred @ directions
    shrinkage = ledoit_wolf_shrinkage(within)
    covariance = (1 - shrinkage) * within.T @ within / len(within)
    covariance += shrinkage * within.square().mean() * torch.eye(len(covariance))
    values, rotation = torch.linalg.eigh(covariance)
    steady = values <= _TINY * (values.sum() + mean.square().sum())
    scale = torch.where(steady, 0.0, values.masked_fill(steady, 1.0).rsqrt())
    return mean.float(), (directions @ rotation).T.float().contiguous(), scale.float()
