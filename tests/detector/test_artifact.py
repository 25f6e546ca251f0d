"""Artifacts: saved and loaded whole, or refused with a reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from detector import artifact as artifacts
from detector.artifact import Artifact
from detector.detector import Detector, Part
from detector.errors import ArtifactError, ArtifactMismatchError, CorruptArtifactError
from detector.planes import Planes
from detector.scores import SCORES, FittedScore
from detector.trajectory import PROMPT
from tests.detector.test_detector import fitted, trajectories


@pytest.mark.parametrize("score", SCORES)
def test_round_trip_judges_alike(artifact: Artifact, tmp_path: Path, score: str) -> None:
    detector = fitted(score=score)
    looks = artifacts.look_manifests(detector)
    saved = Artifact.of(detector, artifact.manifest.model_copy(update={"looks": looks}))
    path = tmp_path / "folder" / "a.safetensors"
    saved.save(path)
    loaded = artifacts.load(path)
    assert loaded.id == saved.id
    assert loaded.manifest == saved.manifest
    new = trajectories(5, seed=9)
    assert loaded.detector.score(PROMPT, new) == detector.score(PROMPT, new)
    assert loaded.detector.threshold == detector.threshold
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_shared_gaussians_are_stored_once(artifact: Artifact, tmp_path: Path) -> None:
    parts = [Part(PROMPT, "mahalanobis"), Part(PROMPT, "tv-paper"), Part(PROMPT, "tv-paper", 1)]
    fit, conformal = (Planes.of(trajectories(100, seed)) for seed in (0, 1))
    detector = Detector.fit({PROMPT: fit}, {PROMPT: conformal}, parts=parts)
    looks = artifacts.look_manifests(detector)
    assert [look.gaussians for look in looks] == [None, 0, None]
    path = tmp_path / "a.safetensors"
    Artifact.of(detector, artifact.manifest.model_copy(update={"looks": looks})).save(path)
    assert {name[:6] for name in load_tensors(path.read_bytes())} == {"calibr", "look.0", "look.2"}
    new = trajectories(5, seed=9)
    loaded = artifacts.load(path).detector
    assert loaded.score(PROMPT, new) == detector.score(PROMPT, new)
    assert loaded.looks[0].score.gaussians is loaded.looks[1].score.gaussians


def test_every_flipped_byte_is_noticed(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifact.save(path)
    content = path.read_bytes()
    for position in range(8, len(content), len(content) // 97):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CorruptArtifactError, match="is damaged"):
            artifacts.load(path)


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_truncated_files_are_noticed(artifact: Artifact, tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.safetensors"
    artifact.save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptArtifactError):
        artifacts.load(path)


def test_other_safetensors_and_newer_formats_are_refused(
    artifact: Artifact, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save_tensors({"weight": torch.zeros(3)}))
    with pytest.raises(CorruptArtifactError, match="no artifact"):
        artifacts.load(path)
    artifact.save(path)
    tensors = load_tensors(path.read_bytes())
    manifest = json.loads(artifact.manifest.model_dump_json()) | {"format": 99}
    metadata = {"manifest": json.dumps(manifest), "digest": "0"}
    path.write_bytes(save_tensors(tensors, metadata))
    with pytest.raises(CorruptArtifactError):
        artifacts.load(path)


def test_missing_and_unwritable_paths(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a file"):
        artifacts.load(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        artifact.save(blocked / "a.safetensors")


def test_mismatch_names_every_difference(artifact: Artifact) -> None:
    served = artifact.manifest.fingerprint
    artifact.manifest.require(served, "tiny")
    other = served.model_copy(update={"dtype": "bfloat16", "chat_template": "f" * 64})
    with pytest.raises(ArtifactMismatchError) as caught:
        artifact.manifest.require(other, "other")
    assert "chat_template" in caught.value.message
    assert "dtype (calibrated float32, served bfloat16)" in caught.value.message
    assert "weights" not in caught.value.message


def test_one_file_holds_no_text_but_the_manifest(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifact.save(path)
    assert b"How many" not in path.read_bytes()
    assert isinstance(artifact.detector.looks[0].score, FittedScore)
