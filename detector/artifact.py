"""A calibration artifact: one safetensors file with the numbers and a JSON manifest.

Saving is atomic. Loading verifies a digest over manifest and numbers, whose first twelve
characters are the artifact's id, and that the numbers are sound; of a file nothing counts that
the digest does not cover. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from detector.atomic import write_atomically
from detector.canonical import TextVersion
from detector.clusters import Clusters
from detector.conformal import Calibration
from detector.detector import Detector
from detector.errors import ArtifactError, CalibrationError, CorruptArtifactError
from detector.fitted_look import FittedLook, Part
from detector.manifest import LookManifest, Manifest, ManifestFormat
from detector.neighbours import LookNeighbours, Neighbours, Space
from detector.scores import SCORES, FittedScore, Learned
from detector.soundness import require_sound
from detector.trajectory import Look, look_name, parse_look

T = TypeVar("T", bound=Any)

_MOST_BYTES = 4 * 2**30
"""No artifact comes near it; what is larger is another file, and is not read into memory."""


@dataclass(frozen=True)
class Artifact:
    """A detector and the manifest that says what it holds for."""

    detector: Detector
    manifest: Manifest
    id: str

    @classmethod
    def of(cls, detector: Detector, manifest: Manifest) -> Artifact:
        digest = _digest(manifest.model_dump_json(), _tensors(detector))
        return cls(detector, manifest, digest[:12])

    def save(self, path: Path) -> None:
        """Write the artifact, or leave what was there. Raises ArtifactError when it cannot be
        written, or is nothing to judge by (`require_sound`).
        """
        require_sound(path, self.detector, self.manifest)
        stored = _tensors(self.detector)
        manifest = self.manifest.model_dump_json()
        metadata = {"manifest": manifest, "digest": _digest(manifest, stored)}
        try:
            write_atomically(path, save_tensors(stored, metadata))
        except OSError as error:
            raise ArtifactError(
                f"artifact {str(path)!r} cannot be written ({error.strerror}): choose a "
                "writable path",
                param="artifact",
            ) from None


def load(path: Path) -> Artifact:
    """Read an artifact. Raises CorruptArtifactError if it is damaged, ArtifactError if it cannot
    be read, this version does not know its format or a score of it, or its numbers are nothing
    to judge by.
    """
    content = _read_file(path)
    try:
        stored = load_tensors(content)
        metadata = _metadata(content)
        digest = _digest(metadata["manifest"], stored)
        if digest != metadata["digest"]:
            raise ValueError("its digest differs from its content")
        _require_format(path, metadata["manifest"])
        manifest = Manifest.model_validate_json(metadata["manifest"])
        _require_scores(path, manifest)
        detector = _detector(manifest, stored)
        require_sound(path, detector, manifest)
        if look_manifests(detector) != manifest.looks or set(_tensors(detector)) != set(stored):
            raise ValueError("its manifest and its numbers do not belong together")
    except (*_UNREADABLE, ValueError, CalibrationError) as error:
        reason = "not readable" if isinstance(error, _UNREADABLE) else str(error).splitlines()[0]
        raise CorruptArtifactError(
            f"artifact {str(path)!r} is damaged or no artifact ({reason}): restore it or make "
            "it again with `trajguard fit`",
            param="artifact",
        ) from None
    return Artifact(detector, manifest, digest[:12])


_UNREADABLE = (SafetensorError, KeyError, IndexError, TypeError, RuntimeError)
"""What comes of reading content that means nothing; RuntimeError has RecursionError in it."""


def _read_file(path: Path) -> bytes:
    """All of it at once: a file that is mapped to memory and then cut short by someone else
    would end the process.
    """
    if not path.is_file():
        raise ArtifactError(
            f"artifact {str(path)!r} is not a file: make one with `trajguard fit`",
            param="artifact",
        )
    try:
        n_bytes = path.stat().st_size
        if n_bytes > _MOST_BYTES:
            raise ArtifactError(
                f"artifact {str(path)!r} has {n_bytes} bytes, more than any artifact "
                f"({_MOST_BYTES}): name another file",
                param="artifact",
            )
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"artifact {str(path)!r} cannot be read ({error.strerror}): make it readable",
            param="artifact",
        ) from None


def _metadata(content: bytes) -> dict[str, str]:
    """What safetensors' header says beside its tensors, of content that was loaded."""
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _detector(manifest: Manifest, stored: dict[str, Tensor]) -> Detector:
    groups = {
        group.name: _calibration(f"group.{n}", stored) for n, group in enumerate(manifest.groups)
    }
    return Detector(
        _looks(manifest, stored),
        _calibration("calibration", stored),
        manifest.alpha,
        manifest.guarantee,
        groups,
        None if manifest.neighbours is None else _neighbours(manifest, stored),
    )


def look_manifests(detector: Detector) -> tuple[LookManifest, ...]:
    """The manifest's lines about a detector's looks."""
    return tuple(
        LookManifest(
            look=look_name(fitted.look),
            score=fitted.score.name,
            order=fitted.score.order,
            n_clusters=len(fitted.location),
            learned=None if owner == index else owner,
        )
        for index, (fitted, owner) in enumerate(zip(detector.looks, _owners(detector), strict=True))
    )


def _owners(detector: Detector) -> list[int]:
    """For each score the first place in the detector that has learned the same."""
    first: dict[int, int] = {}
    return [
        index if learned is None else first.setdefault(id(learned), index)
        for index, learned in enumerate(fitted.score.learned for fitted in detector.looks)
    ]


def _tensors(detector: Detector) -> dict[str, Tensor]:
    calibrations = {"calibration": detector.calibration}
    calibrations |= {f"group.{n}": group for n, group in enumerate(detector.groups.values())}
    stored: dict[str, Tensor] = {}
    for name, calibration in calibrations.items():
        stored[name] = calibration.scores
        if calibration.weights is not None:
            stored[f"{name}.weights"] = calibration.weights
    owners = _owners(detector)
    for index, fitted in enumerate(detector.looks):
        stored[f"look.{index}.location"] = fitted.location
        stored[f"look.{index}.scale"] = fitted.scale
        if fitted.band is not None:
            stored[f"look.{index}.band"] = fitted.band
        if fitted.clusters is not None:
            stored |= _fields(f"look.{index}.clusters", fitted.clusters)
        if fitted.score.learned is not None and owners[index] == index:
            stored |= _fields(f"look.{index}", fitted.score.learned)
    if detector.neighbours is not None:
        for place, found in enumerate(detector.neighbours.looks.values()):
            stored |= _fields(f"neighbours.{place}.space", found.space)
            stored |= {f"neighbours.{place}.{name}": getattr(found, name) for name in _KEPT}
    # Clusters are shared by the scores of a look, and safetensors writes no tensor twice.
    return {name: tensor.cpu().contiguous().clone() for name, tensor in stored.items()}


_KEPT = ("questions", "kinds", "usual")


def _neighbours(manifest: Manifest, stored: dict[str, Tensor]) -> Neighbours:
    """Of each look of the detector, in their order."""
    looks: dict[Look, LookNeighbours] = {}
    for place, name in enumerate(dict.fromkeys(look.look for look in manifest.looks)):
        space = _read(Space, f"neighbours.{place}.space", stored)
        kept = (stored[f"neighbours.{place}.{name}"] for name in _KEPT)
        looks[parse_look(name)] = LookNeighbours(space, *kept)
    return Neighbours(looks)


def _fields(prefix: str, holder: Learned | Clusters | Space) -> dict[str, Tensor]:
    return {f"{prefix}.{field.name}": getattr(holder, field.name) for field in fields(holder)}


def _calibration(name: str, stored: dict[str, Tensor]) -> Calibration:
    return Calibration(stored[name], stored.get(f"{name}.weights"))


def _require_format(path: Path, manifest: str) -> None:
    written = ManifestFormat.model_validate_json(manifest)
    if written.format != Manifest.model_fields["format"].default:
        raise ArtifactError(
            f"artifact {str(path)!r} is of format {written.format}, which this version does not "
            "read: make it again with `trajguard fit`",
            param="artifact",
        )
    if written.context.text not in get_args(TextVersion):
        raise ArtifactError(
            f"artifact {str(path)!r} judges {written.context.text!r} text, which this version does "
            f"not write (it writes {', '.join(get_args(TextVersion))}): make it again with "
            "`trajguard collect` and `trajguard fit`",
            param="artifact",
        )


def _require_scores(path: Path, manifest: Manifest) -> None:
    for look in manifest.looks:
        if look.score not in SCORES or look.order not in SCORES[look.score].orders:
            part = Part(parse_look(look.look), look.score, look.order)
            raise ArtifactError(
                f"artifact {str(path)!r} judges by {str(part)!r}, a score that this version does "
                "not know: make it again with `trajguard fit`",
                param="artifact",
            )


def _looks(manifest: Manifest, stored: dict[str, Tensor]) -> tuple[FittedLook, ...]:
    read: dict[int, Learned] = {}
    looks = []
    for index, look in enumerate(manifest.looks):
        definition = SCORES[look.score]
        owner = index if look.learned is None else look.learned
        if definition.kind is not None and owner not in read:
            read[owner] = _read(definition.kind, f"look.{owner}", stored)
        clusters = None
        if look.n_clusters > 1:
            clusters = _read(Clusters, f"look.{index}.clusters", stored)
        looks.append(
            FittedLook(
                parse_look(look.look),
                FittedScore(definition, look.order, read.get(owner)),
                stored[f"look.{index}.location"],
                stored[f"look.{index}.scale"],
                clusters,
                # Artifacts made before there were bands have none.
                stored.get(f"look.{index}.band"),
            )
        )
    return tuple(looks)


def _read(kind: type[T], prefix: str, stored: dict[str, Tensor]) -> T:
    read: T = kind(**{field.name: stored[f"{prefix}.{field.name}"] for field in fields(kind)})
    return read


def _digest(manifest: str, stored: dict[str, Tensor]) -> str:
    """Of the manifest as it is written, not as this version reads it: fields that a later
    version adds do not change the digest of an artifact made before it.
    """
    digest = hashlib.sha256(json.dumps(json.loads(manifest), sort_keys=True).encode())
    for name in sorted(stored):
        tensor = stored[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
