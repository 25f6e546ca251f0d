"""Fit: collections in, artifact out. Never needs the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from calibration.collection import Collection, at_look, read_collections
from calibration.questions import Split, split_of
from detector.artifact import Artifact, look_manifests
from detector.conformal import Guarantee
from detector.detector import Detector, Part
from detector.manifest import Manifest, Splits
from detector.trajectory import Look


@dataclass(frozen=True)
class FitOptions:
    """What the guard consists of. `parts` None takes the mean Mahalanobis distance at every
    look that was collected.
    """

    parts: tuple[Part, ...] | None = None
    rank: int = 128
    alpha: float = 0.05
    guarantee: Guarantee = "marginal"


def pooled(collections: Sequence[Collection], look: Look) -> dict[Split, Tensor]:
    """Trajectories (n, L + 1, d) at a look by split, each question once."""
    rows: dict[Split, list[Tensor]] = {"fit": [], "conformal": [], "holdout": []}
    seen: set[str] = set()
    for collection in collections:
        for key, trajectory in zip(collection.keys, at_look(collection, look), strict=True):
            if key not in seen:
                seen.add(key)
                rows[split_of(key)].append(trajectory)
    width = collections[0].trajectories.shape[2:]
    return {
        split: torch.stack(kept) if kept else torch.empty(0, *width) for split, kept in rows.items()
    }


def fit(folders: Sequence[Path], scope: str, options: FitOptions) -> Artifact:
    """Fit a detector on collections of in-distribution questions.

    Raises CalibrationError, and TooFewQuestionsError when the conformal split cannot keep
    the alpha asked for.
    """
    collections = read_collections(folders)
    record = collections[0].record
    parts = options.parts or tuple(Part(look) for look in record.parsed_looks)
    by_look = {look: pooled(collections, look) for look in dict.fromkeys(p.look for p in parts)}
    detector = Detector.fit(
        {look: splits["fit"] for look, splits in by_look.items()},
        {look: splits["conformal"] for look, splits in by_look.items()},
        parts=parts,
        rank=options.rank,
        alpha=options.alpha,
        guarantee=options.guarantee,
    )
    sizes = next(iter(by_look.values()))
    manifest = Manifest(
        scope=scope,
        model_name=record.model_name,
        n_layers=record.n_layers,
        hidden_size=record.hidden_size,
        fingerprint=record.fingerprint,
        context=record.context,
        looks=look_manifests(detector),
        alpha=options.alpha,
        guarantee=options.guarantee,
        splits=Splits(**{split: len(rows) for split, rows in sizes.items()}),
        sources=tuple(collection.record.source for collection in collections),
    )
    return Artifact.of(detector, manifest)
