"""What scores learn from the fit split."""

from __future__ import annotations

from functools import cached_property

from detector.contrast import Contrast, Weights
from detector.errors import CalibrationError
from detector.gaussian import DiagonalGaussians, LayerGaussians
from detector.planes import Planes


class FitSplit:
    """One look's trajectories to fit to, and what scores learn from them, each when first asked
    for, and once: scores that measure against the same Gaussians share them.

    `background` are trajectories of other questions, for the contrast alone, and `weights` what
    the rows of both weigh in it. `rank` caps the
    low-rank part of a layer's covariance, and twice the rank that of a difference's; None keeps
    all of it.
    """

    def __init__(
        self,
        planes: Planes,
        rank: int | None = None,
        background: Planes | None = None,
        weights: Weights | None = None,
    ) -> None:
        self._planes = planes
        self._background = background
        self._weights = weights
        self._rank = rank
        # A difference adds up spectra that hardly overlap, so it needs more directions than a
        # layer. Twice as many score as the whole sum does within 0.2 points of AUROC, the rank
        # alone up to 5 below it (docs/benchmark.md).
        self._difference_rank = None if rank is None else 2 * rank
        self._by_order: dict[int, LayerGaussians] = {}

    @property
    def n_layers(self) -> int:
        return self._planes.n_planes - 1

    def of_order(self, order: int) -> LayerGaussians:
        """Those of the trajectories' differences of this order. Raises CalibrationError."""
        if order not in self._by_order:
            self._by_order[order] = (
                self.of_order(0).difference(order, self._difference_rank)
                if order
                else LayerGaussians.fit(self._planes, self._rank)
            )
        return self._by_order[order]

    @cached_property
    def last(self) -> LayerGaussians:
        """That of the last layer alone. Raises CalibrationError."""
        return LayerGaussians.fit([self._planes[self.n_layers]], self._rank)

    @cached_property
    def diagonal(self) -> DiagonalGaussians:
        return DiagonalGaussians.fit(self._planes)

    @cached_property
    def contrast(self) -> Contrast:
        """Raises CalibrationError without other questions to contrast with."""
        if self._background is None:
            raise CalibrationError(
                "score 'contrast' needs other questions: give `fit` collections of them with "
                "--contrast or take 'mahalanobis'",
                param="guard",
            )
        return Contrast.fit(self._planes, self._background, self._weights)
