"""Per-layer Gaussians of in-distribution trajectories, and the distances to them.

`LayerGaussians` holds, for every layer, a mean and a covariance of the form low rank plus
isotropic. Shrinking the sample covariance S of n centred rows towards a multiple of the
identity (Ledoit and Wolf, 2004, "A well-conditioned estimator for large-dimensional
covariance matrices") gives exactly that form:

    Sigma = (1 - s) S + s m I,  m = tr(S) / d.

With orthonormal eigenvectors u_i, eigenvalues e_i of Sigma and c the variance left in
every other direction,

    f(z) = z^T Sigma^-1 z = (|z|^2 - sum_i (1 - c / e_i) (u_i . z)^2) / c,

so no d x d matrix is built, stored or inverted: 2 r d multiplications a layer. Below full
rank, c is the mean of the eigenvalues left out, as in probabilistic PCA (Tipping and
Bishop, 1999).

`DiagonalGaussians` keeps one variance a coordinate, as the code released with the TV paper
does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

from detector.errors import CalibrationError

_CONSTANT = 1e-12
"""A variance below this share of the squared mean is rounding."""

_EXACT_SIDE = 1536
"""Up to this many rows or columns the spectrum is computed in full; beyond it, only its
top, by a randomised range finder (Halko, Martinsson and Tropp, 2011)."""


def ledoit_wolf_shrinkage(centred: Tensor) -> float:
    """Shrinkage s in [0, 1] of n centred rows (n, d), by Ledoit and Wolf (2004), Lemma 3.3.

    Needs only traces: tr(S), |S|_F^2 through the smaller Gram matrix, and row norms.
    """
    n, d = centred.shape
    row_norms = centred.square().sum(1).double()
    mean_variance = row_norms.sum() / (n * d)
    if n <= d:
        frobenius = (centred @ centred.T).double().square().sum()
    else:
        # |X^T X|_F^2 a block of columns at a time, so that nothing d x d is kept.
        blocks = centred.split(256, dim=1)
        frobenius = sum(
            ((centred.T @ block).double().square().sum() for block in blocks),
            start=torch.zeros((), dtype=torch.float64, device=centred.device),
        )
    frobenius = frobenius / n**2
    dispersion = frobenius / d - mean_variance**2
    noise = (row_norms.square().sum() / n - frobenius) / (n * d)
    if dispersion <= 0:
        return 1.0
    return float((noise.clamp(min=0) / dispersion).clamp(max=1))


def _top_spectrum(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The `rank` largest eigenvalues of X^T X and their eigenvectors (rank, d)."""
    n, d = rows.shape
    if min(n, d) <= _EXACT_SIDE:
        _, singular, basis = torch.linalg.svd(rows, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, singular, right = torch.svd_lowrank(rows, q=min(2 * rank, n, d), niter=4)
        basis = right.T
    return singular[:rank].square(), basis[:rank]


def _low_rank(
    mean: Tensor, eigenvalues: Tensor, basis: Tensor, trace: Tensor
) -> tuple[Tensor, ...]:
    """One plane's fields from the top eigenpairs of a covariance and its trace."""
    left_out = basis.shape[1] - len(basis)
    variance = ((trace - eigenvalues.sum()) / left_out).clamp(min=torch.finfo(trace.dtype).tiny)
    return mean, basis, (1 - variance / eigenvalues).clamp(min=0), variance


def _stack_fits(fits: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.stack(column).float() for column in zip(*fits, strict=True)]


@dataclass(frozen=True)
class LayerGaussians:
    """One Gaussian a plane, covariance low rank plus isotropic.

    mean     (planes, d)
    basis    (planes, r, d)  orthonormal rows u_i
    weight   (planes, r)     1 - c / e_i, in [0, 1)
    variance (planes,)       c, squared units of the hidden state

    A plane that does not vary in distribution has variance 0 and adds no distance: the
    embedding at the prompt look is one, since all prompts end in the same token.
    """

    mean: Tensor
    basis: Tensor
    weight: Tensor
    variance: Tensor

    @classmethod
    def fit(cls, planes: Iterable[Tensor], rank: int | None = None) -> LayerGaussians:
        """Fit one Gaussian to each plane (n, d), taken one at a time.

        `rank` caps the rank of the low-rank part; None keeps all of it, and then the
        covariance is exactly Ledoit and Wolf's. Raises CalibrationError below 3 rows.
        """
        return cls(*_stack_fits([cls._fit_plane(plane, rank) for plane in planes]))

    @staticmethod
    def _fit_plane(plane: Tensor, rank: int | None) -> tuple[Tensor, ...]:
        n, d = plane.shape
        if n < 3:
            raise CalibrationError(
                f"{n} trajectories in the fit split: a covariance needs at least 3, "
                "collect more questions"
            )
        exact = min(n, d) <= _EXACT_SIDE
        rows = plane.double() if exact else plane.float()
        mean = rows.mean(0)
        centred = rows - mean
        total = centred.square().sum() / n
        if total <= _CONSTANT * mean.square().sum():
            r = min(n - 1, d - 1, rank or d)
            return mean, torch.eye(r, d), torch.zeros(r), torch.zeros(())
        shrinkage = ledoit_wolf_shrinkage(centred)
        eigenvalues, basis = _top_spectrum(centred, min(n - 1, d - 1, rank or d))
        shrunk = (1 - shrinkage) * eigenvalues / n + shrinkage * total / d
        return _low_rank(mean, shrunk, basis, total)

    def distances(self, trajectories: Tensor) -> Tensor:
        """Squared Mahalanobis distances: (n, planes, d) -> (n, planes)."""
        centred = (trajectories - self.mean).transpose(0, 1)
        coefficients = centred @ self.basis.transpose(1, 2)
        explained = (coefficients.square() @ self.weight[:, :, None])[:, :, 0]
        residual = centred.square().sum(2) - explained
        precision = torch.where(self.variance > 0, 1 / self.variance, 0.0)
        return (residual * precision[:, None]).T

    def difference(self, order: int, rank: int | None = None) -> LayerGaussians:
        """The Gaussians of `difference(trajectory, order)` by the paper's rule.

        Means differ as the trajectory does; covariances add with weights C(order, i)
        (arXiv 2405.14039, differential smoothing). The sum of low-rank-plus-isotropic
        covariances is again one, of rank at most (order + 1) r; `rank` caps it, None keeps
        all.
        """
        if order == 0:
            return self
        means = self.mean.double().diff(n=order, dim=0)
        variance = self.variance.double()
        spread = variance[:, None] * self.weight.double() / (1 - self.weight.double())
        factor = spread.sqrt()[:, :, None] * self.basis.double()
        d = factor.shape[2]
        fits = []
        for low, mean in enumerate(means):
            binomials = variance.new_tensor([comb(order, i) for i in range(order + 1)])
            window = slice(low, low + order + 1)
            isotropic = binomials @ variance[window]
            stacked = (factor[window] * binomials.sqrt()[:, None, None]).flatten(0, 1)
            eigenvalues, basis = _top_spectrum(stacked, min(len(stacked), d - 1, rank or d))
            trace = d * isotropic + binomials @ spread[window].sum(1)
            fits.append(_low_rank(mean, eigenvalues + isotropic, basis, trace))
        return LayerGaussians(*_stack_fits(fits))

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    def to(self, device: torch.device) -> LayerGaussians:
        fields = (self.mean, self.basis, self.weight, self.variance)
        return LayerGaussians(*(tensor.to(device) for tensor in fields))


@dataclass(frozen=True)
class DiagonalGaussians:
    """One Gaussian a plane with a variance for each coordinate, both (planes, d)."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def fit(cls, planes: Iterable[Tensor]) -> DiagonalGaussians:
        """Mean and population variance (divided by n) of each plane (n, d)."""
        fits = [(plane.double().mean(0), plane.double().var(0, correction=0)) for plane in planes]
        return cls(*_stack_fits(fits))

    def to(self, device: torch.device) -> DiagonalGaussians:
        return DiagonalGaussians(self.mean.to(device), self.variance.to(device))
