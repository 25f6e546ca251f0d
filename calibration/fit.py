"""Fit: collections in, artifact out. Never needs the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from calibration.collection import Collection, planes_of, read_collections
from calibration.questions import Split, split_of
from detector.artifact import Artifact, look_manifests
from detector.detector import Detector, Part
from detector.errors import CalibrationError
from detector.groups import LENGTH, Grouping
from detector.manifest import GroupManifest, Manifest, Splits
from detector.planes import Planes
from detector.trajectory import Look
from detector.verdict import Guarantee


@dataclass(frozen=True)
class FitOptions:
    """What the guard consists of. `parts` None takes the mean Mahalanobis distance at every
    look that was collected. `group_by` is "length", a field of the questions, or None.
    """

    parts: tuple[Part, ...] | None = None
    rank: int = 128
    alpha: float = 0.05
    guarantee: Guarantee = "marginal"
    group_by: str | None = None


@dataclass(frozen=True)
class Pool:
    """Some questions of collections that belong together: `rows` counts through them all."""

    collections: tuple[Collection, ...]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, looks: Sequence[Look]) -> dict[Look, Planes]:
        """Their trajectories at each look. Raises CalibrationError if not collected."""
        rows = torch.tensor(self.rows, dtype=torch.long)
        return {look: planes_of(self.collections, look).select(rows) for look in looks}

    @property
    def texts(self) -> list[str]:
        texts = [text for collection in self.collections for text in collection.texts]
        return [texts[row] for row in self.rows]

    def groups(self, grouping: Grouping) -> list[str | None]:
        fields = [fields for collection in self.collections for fields in collection.fields]
        return [
            grouping.group_of(text, fields[row])
            for text, row in zip(self.texts, self.rows, strict=True)
        ]


def pooled(collections: Sequence[Collection]) -> dict[Split, Pool]:
    """The questions of all collections by split, each once."""
    rows: dict[Split, list[int]] = {"fit": [], "conformal": [], "holdout": []}
    seen: set[str] = set()
    for row, key in enumerate(key for collection in collections for key in collection.keys):
        if key not in seen:
            seen.add(key)
            rows[split_of(key)].append(row)
    return {split: Pool(tuple(collections), tuple(kept)) for split, kept in rows.items()}


def _grouping(by: str | None, fitted: Pool) -> Grouping | None:
    """Three groups of equal size for the length, as the fit split has it."""
    if by != LENGTH:
        return None if by is None else Grouping(by=by)
    lengths = sorted(len(text.split()) for text in fitted.texts)
    thirds = {lengths[len(lengths) * part // 3] for part in (1, 2)} if lengths else set()
    return Grouping(by=LENGTH, edges=tuple(sorted(thirds)))


def fit(folders: Sequence[Path], scope: str, options: FitOptions) -> Artifact:
    """Fit a detector on collections of in-distribution questions.

    Raises CalibrationError, and TooFewQuestionsError when the conformal split cannot keep
    the alpha asked for.
    """
    collections = read_collections(folders)
    record = collections[0].record
    parts = options.parts or tuple(Part(look) for look in record.parsed_looks)
    looks = [part.look for part in parts]
    pools = pooled(collections)
    grouping = _grouping(options.group_by, pools["fit"])
    detector = Detector.fit(
        pools["fit"].at(looks),
        pools["conformal"].at(looks),
        parts=parts,
        groups=None if grouping is None else pools["conformal"].groups(grouping),
        rank=options.rank,
        alpha=options.alpha,
        guarantee=options.guarantee,
    )
    if grouping is not None and not detector.groups:
        raise CalibrationError(
            f"no conformal question has a text field {grouping.by!r} to group by: add it to the "
            "questions files and collect again",
            param="group-by",
        )
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
        splits=Splits(**{split: len(pool) for split, pool in pools.items()}),
        sources=tuple(collection.record.source for collection in collections),
        grouping=grouping,
        groups=tuple(
            GroupManifest(name=name, n_conformal=len(scores))
            for name, scores in detector.groups.items()
        ),
    )
    return Artifact.of(detector, manifest)
