"""What must hold of an artifact's numbers before anything is judged by them.

A number that is NaN, or a tensor of another shape, would still be compared with a threshold, and
mostly allow. `require_sound` is asked before an artifact is written and after it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from detector.clusters import Clusters
from detector.conformal import Calibration
from detector.contrast import Contrast
from detector.detector import Detector
from detector.errors import ArtifactError
from detector.fitted_look import FittedLook
from detector.gaussian import DiagonalGaussians, LayerGaussians
from detector.manifest import Manifest
from detector.neighbours import Neighbours, Space
from detector.scores import Learned
from detector.trajectory import PROMPT_LOOKS
from detector.verdict import BAND_LEVELS

_Dimensions = tuple[str, ...]
_SHAPES: Mapping[type[Learned | Clusters | Space], Mapping[str, _Dimensions]] = {
    LayerGaussians: {
        "mean": ("planes", "d"),
        "basis": ("planes", "rank", "d"),
        "weight": ("planes", "rank"),
        "variance": ("planes",),
    },
    DiagonalGaussians: {"mean": ("planes", "d"), "variance": ("planes", "d")},
    Contrast: {
        "planes": ("planes",),
        "mean": ("planes", "d"),
        "weight": ("planes", "d"),
        "bias": (),
    },
    Clusters: {
        "plane": (),
        "mean": ("d",),
        "basis": ("directions", "d"),
        "centres": ("clusters", "directions"),
    },
    Space: {
        "layers": ("planes",),
        "mean": ("planes", "d"),
        "basis": ("planes", "rank", "d"),
        "scale": ("planes", "rank"),
    },
}
_PLACES = {"planes", "plane", "layers"}
"""Fields that hold layers' numbers."""
_HALVES = {(Space, "basis")}


def require_sound(path: Path, detector: Detector, manifest: Manifest) -> None:
    """Raise ArtifactError unless the numbers at a path, or to be written there, are finite, in
    range, of the shapes that the manifest's model has, and belong together.
    """
    try:
        _require_sound(detector, manifest)
    except _UnsoundError as unsound:
        name, what = unsound.args
        raise ArtifactError(
            f"artifact {str(path)!r} cannot be judged by, for its {name!r}: {what}; make it again "
            "with `trajguard fit`",
            param="artifact",
        ) from None


def _require_sound(detector: Detector, manifest: Manifest) -> None:
    if not detector.looks:
        raise _UnsoundError("looks", "there are none")
    for index, fitted in enumerate(detector.looks):
        _require_look(f"look.{index}", fitted, manifest)
        if fitted.band is not None:
            _require_band(f"look.{index}.band", fitted.band, fitted, manifest)
    judged_at_prompt = any(fitted.look in PROMPT_LOOKS for fitted in detector.looks)
    calibrations = {"calibration": detector.calibration}
    calibrations |= {f"group.{n}": group for n, group in enumerate(detector.groups.values())}
    for name, calibration in calibrations.items():
        _require_calibration(name, calibration, judged_at_prompt)
    if (detector.neighbours is None) != (manifest.neighbours is None):
        raise _UnsoundError("neighbours", "they have numbers without names, or names alone")
    if detector.neighbours is not None:
        _require_neighbours(detector.neighbours, manifest)


def _require_neighbours(neighbours: Neighbours, manifest: Manifest) -> None:
    """Nothing is judged by them, and an explanation must not mislead."""
    assert manifest.neighbours is not None
    n, n_kinds = len(manifest.neighbours.questions), len(manifest.neighbours.kinds)
    for place, found in enumerate(neighbours.looks.values()):
        name = f"neighbours.{place}"
        _require_fields(
            f"{name}.space", found.space, {"d": manifest.hidden_size}, manifest.n_layers
        )
        width = found.space.scale.numel()
        _require(f"{name}.questions", found.questions, (n, width), torch.float16)
        _require(f"{name}.kinds", found.kinds, (n_kinds, width), torch.float16)
        _require(f"{name}.usual", found.usual, (len(BAND_LEVELS),), torch.float32)


def _require_look(name: str, fitted: FittedLook, manifest: Manifest) -> None:
    n_clusters = 1 if fitted.clusters is None else len(fitted.clusters)
    for field in ("location", "scale"):
        _require(f"{name}.{field}", getattr(fitted, field), (n_clusters,), torch.float64)
    if not bool((fitted.scale > 0).all()):
        raise _UnsoundError(f"{name}.scale", "it is not over 0")
    known = {"d": manifest.hidden_size}
    if fitted.clusters is not None:
        _require_fields(f"{name}.clusters", fitted.clusters, known, manifest.n_layers)
    learned, definition = fitted.score.learned, fitted.score.definition
    if definition.kind is None or learned is None:
        return
    if type(learned) is not definition.kind:
        raise _UnsoundError(
            name, f"the score {definition.name!r} learns no {type(learned).__name__}"
        )
    n_planes = definition.n_planes(manifest.n_layers, fitted.score.order)
    if n_planes is not None:
        known = known | {"planes": n_planes}
    _require_fields(name, learned, known, manifest.n_layers)


def _require_band(name: str, band: Tensor, fitted: FittedLook, manifest: Manifest) -> None:
    """Nothing is judged by it, and a picture of it must not mislead."""
    n_distances = len(fitted.score.layers(manifest.n_layers))
    _require(name, band, (len(BAND_LEVELS), n_distances), torch.float32)
    if not bool((band.diff(dim=0) >= 0).all()):
        raise _UnsoundError(name, "its quantiles are not in order")


def _require_fields(
    name: str, holder: Learned | Clusters | Space, known: Mapping[str, int], n_layers: int
) -> None:
    """`known` are sizes by dimension; of others a holder's fields must agree."""
    sizes = dict(known)
    for field in fields(holder):
        tensor: Tensor = getattr(holder, field.name)
        full, dimensions = f"{name}.{field.name}", _SHAPES[type(holder)][field.name]
        if tensor.dim() == len(dimensions):
            for dimension, size in zip(dimensions, tensor.shape, strict=True):
                sizes.setdefault(dimension, size)
        wanted = tuple(sizes.get(dimension, 0) for dimension in dimensions)
        is_place = field.name in _PLACES
        real = torch.float16 if (type(holder), field.name) in _HALVES else torch.float32
        _require(full, tensor, wanted, torch.int64 if is_place else real)
        if is_place and not bool(((tensor >= 0) & (tensor <= n_layers)).all()):
            raise _UnsoundError(full, f"it names a layer that is not one of 0 to {n_layers}")
        if field.name == "variance" and not bool((tensor >= 0).all()):
            raise _UnsoundError(full, "it is under 0")


def _require_calibration(name: str, calibration: Calibration, judged_at_prompt: bool) -> None:
    scores, weights = calibration.scores, calibration.weights
    n = len(scores) if scores.dim() == 1 else 0
    if n == 0:
        raise _UnsoundError(name, "it has no scores")
    # A response that ended before every look scored minus infinity, and no prompt does.
    finite = scores if judged_at_prompt else scores[~scores.isneginf()]
    _require(name, finite, (len(finite),), torch.float64)
    if weights is not None:
        _require(f"{name}.weights", weights, (n,), torch.float64)
        if not bool(((weights > 0) & (weights <= 1)).all()):
            raise _UnsoundError(f"{name}.weights", "a share is not in 0 to 1")


def _require(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise _UnsoundError(name, f"it is {tensor.dtype}, not {dtype}")
    if tuple(tensor.shape) != shape:
        raise _UnsoundError(name, f"its shape is {tuple(tensor.shape)}, not {shape}")
    if not bool(tensor.isfinite().all()):
        raise _UnsoundError(name, "it has values that are NaN or infinite")


class _UnsoundError(Exception):
    """A tensor's name, and what is wrong with it."""
