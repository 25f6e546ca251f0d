"""A calibration artifact: one safetensors file with the numbers and a JSON manifest.

Saving is atomic. Loading verifies a digest over manifest and numbers, whose first twelve
characters are the artifact's id. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detector.atomic import write_atomically
from detector.detector import Detector, FittedLook
from detector.errors import ArtifactError, CorruptArtifactError
from detector.gaussian import DiagonalGaussians, LayerGaussians
from detector.manifest import LookManifest, Manifest
from detector.scores import FittedScore
from detector.trajectory import look_name, parse_look


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
        """Write the artifact, or leave what was there. Raises ArtifactError."""
        stored = _tensors(self.detector)
        manifest = self.manifest.model_dump_json()
        metadata = {"manifest": manifest, "digest": _digest(manifest, stored)}
        try:
            write_atomically(path, save(stored, metadata))
        except OSError as error:
            raise ArtifactError(
                f"artifact {str(path)!r} cannot be written ({error.strerror}): choose a "
                "writable path",
                param="artifact",
            ) from None


def load(path: Path) -> Artifact:
    """Read an artifact. Raises ArtifactError, or CorruptArtifactError if damaged."""
    if not path.is_file():
        raise ArtifactError(
            f"artifact {str(path)!r} is not a file: make one with `python -m calibration fit`",
            param="artifact",
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        manifest = Manifest.model_validate_json(metadata["manifest"])
        digest = _digest(metadata["manifest"], stored)
        if digest != metadata["digest"]:
            raise ValueError("its digest differs from its content")
        looks = _looks(manifest, stored)
        groups = {g.name: stored[f"group.{n}"] for n, g in enumerate(manifest.groups)}
        detector = Detector(
            looks, stored["calibration"], manifest.alpha, manifest.guarantee, groups
        )
    except (SafetensorError, ValidationError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if isinstance(error, ValueError) else "not readable"
        raise CorruptArtifactError(
            f"artifact {str(path)!r} is damaged or no artifact ({reason}): restore it or make "
            "it again with `python -m calibration fit`",
            param="artifact",
        ) from None
    return Artifact(detector, manifest, digest[:12])


def look_manifests(detector: Detector) -> tuple[LookManifest, ...]:
    """The manifest's lines about a detector's looks."""
    return tuple(
        LookManifest(
            look=look_name(fitted.look),
            score=fitted.score.name,
            order=fitted.score.order,
            location=fitted.location,
            scale=fitted.scale,
            gaussians=None if owner == index else owner,
        )
        for index, (fitted, owner) in enumerate(zip(detector.looks, _owners(detector), strict=True))
    )


def _owners(detector: Detector) -> list[int]:
    """For each score the first place in the detector that has the same Gaussians."""
    first: dict[int, int] = {}
    return [
        index if gaussians is None else first.setdefault(id(gaussians), index)
        for index, gaussians in enumerate(fitted.score.gaussians for fitted in detector.looks)
    ]


def _tensors(detector: Detector) -> dict[str, Tensor]:
    stored = {"calibration": detector.calibration}
    stored |= {f"group.{n}": scores for n, scores in enumerate(detector.groups.values())}
    owners = _owners(detector)
    for index, fitted in enumerate(detector.looks):
        if fitted.score.gaussians is None or owners[index] != index:
            continue
        for field in fields(fitted.score.gaussians):
            tensor: Tensor = getattr(fitted.score.gaussians, field.name)
            stored[f"look.{index}.{field.name}"] = tensor.contiguous()
    return stored


def _looks(manifest: Manifest, stored: dict[str, Tensor]) -> tuple[FittedLook, ...]:
    read: dict[int, DiagonalGaussians | LayerGaussians] = {}
    looks = []
    for index, look in enumerate(manifest.looks):
        kind = DiagonalGaussians if look.score == "tv-reference" else LayerGaussians
        owner = index if look.gaussians is None else look.gaussians
        gaussians = None
        if not look.score.startswith("coe-"):
            if owner not in read:
                names = [field.name for field in fields(kind)]
                read[owner] = kind(**{name: stored[f"look.{owner}.{name}"] for name in names})
            gaussians = read[owner]
        score = FittedScore(look.score, look.order, gaussians)
        looks.append(FittedLook(parse_look(look.look), score, look.location, look.scale))
    return tuple(looks)


def _digest(manifest: str, stored: dict[str, Tensor]) -> str:
    """Of the manifest as it is written, not as this version reads it: fields that a later
    version adds do not change the digest of an artifact made before it.
    """
    digest = hashlib.sha256(json.dumps(json.loads(manifest), sort_keys=True).encode())
    for name in sorted(stored):
        tensor = stored[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
