"""EK-FAC: the Gauss-Newton matrix of each linear layer, in a basis that its inverse is easy in.

After George et al. (arXiv 1806.03884), as Grosse et al. (arXiv 2308.03296, section 2.2) use it for
influence. With a the inputs of a layer and Ds the gradients by its outputs, of log-probabilities
of tokens that the model itself draws,

    A = E[a a^T] = Q_A L_A Q_A^T,   S = E[Ds Ds^T] = Q_S L_S Q_S^T
    G ~ (Q_A x Q_S) diag(Lambda) (Q_A x Q_S)^T,   Lambda_ij = E[(Q_S^T grad_W f Q_A)_ij^2]

the first two over positions and the last over documents: Lambda is what G really has on that
basis's diagonal, and not the product of two eigenvalues, as in K-FAC. Layers are taken to have
nothing to do with each other. G is damped by `damping` times the mean of Lambda, layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from calibration.influence.gradients import Batch, Gradients, Layer

DAMPING = 0.1
"""Times the mean eigenvalue: that of arXiv 2308.03296."""


@dataclass(frozen=True)
class Factors:
    """One layer's basis, and the damped eigenvalues (out, in) of the Gauss-Newton matrix there."""

    inputs: Tensor
    outputs: Tensor
    damped: Tensor

    def gradients(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Of each text, in the basis: (n, T, in) and (n, T, out) -> (n, out, in)."""
        return _in_basis(self.inputs, self.outputs, inputs, outputs)


def fit_factors(
    gradients: Gradients,
    batches: Sequence[Batch],
    *,
    damping: float = DAMPING,
    draws: int = 1,
    seed: int = 0,
    ran: Callable[[int], object] = lambda _: None,
) -> dict[Layer, Factors]:
    """Of every layer that `gradients` shows, by two runs over the documents with the same draws:
    one for the bases, one for the eigenvalues. `ran` is told of each few documents run.
    """
    n_drawn = draws * sum(len(batch.texts) for batch in batches)
    products: dict[Layer, list[Tensor]] = {}
    squares: dict[Layer, Tensor] = {}
    bases: dict[Layer, tuple[Tensor, Tensor]] = {}

    def add_products(batch: Batch, layer: Layer, inputs: Tensor, outputs: Tensor) -> None:
        sides = inputs[batch.held], outputs[batch.held]
        if layer not in products:
            products[layer] = [side.new_zeros(side.shape[1], side.shape[1]) for side in sides]
        for total, side in zip(products[layer], sides, strict=True):
            total.addmm_(side.mT, side)

    def add_squares(layer: Layer, inputs: Tensor, outputs: Tensor) -> None:
        found = _in_basis(*bases[layer], inputs, outputs).square_().sum(0)
        squares[layer] = squares[layer].add_(found) if layer in squares else found

    for batch in batches:
        gradients.of_draws(batch, partial(add_products, batch), draws, seed)
        ran(len(batch.texts))
    for layer in list(products):
        inputs, outputs = products.pop(layer)
        bases[layer] = _basis(inputs), _basis(outputs)
    for batch in batches:
        gradients.of_draws(batch, add_squares, draws, seed)
        ran(len(batch.texts))
    factors = {}
    for layer, (inputs, outputs) in bases.items():
        eigenvalues = squares.pop(layer) / n_drawn
        factors[layer] = Factors(inputs, outputs, eigenvalues + damping * eigenvalues.mean())
    return factors


def _in_basis(basis_in: Tensor, basis_out: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    return (outputs @ basis_out).mT @ (inputs @ basis_in)


def _basis(product: Tensor) -> Tensor:
    """Its eigenvectors, found in float64: float32's are not orthogonal enough where eigenvalues
    differ by many powers of ten.
    """
    basis: Tensor = torch.linalg.eigh(product.double()).eigenvectors
    return basis.to(product.dtype)
