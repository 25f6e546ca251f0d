"""Artifacts whose files are whole and whose numbers are nothing to judge by."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from detector import artifact as artifacts
from detector.artifact import Artifact
from detector.clusters import Clusters
from detector.conformal import Calibration
from detector.detector import Detector
from detector.errors import ArtifactError, CorruptArtifactError
from detector.fitted_look import FittedLook, Part
from detector.manifest import GroupManifest
from detector.neighbour_names import KindName, NeighbourName, NeighbourNames
from detector.neighbours import Neighbours, Space, look_neighbours
from detector.planes import Planes
from detector.scores import SCORES
from detector.soundness import _SHAPES
from detector.trajectory import PROMPT
from tests.detector.test_artifact import artifact, signed  # noqa: F401 (a fixture)
from tests.detector.test_detector import CLUSTERS, N_PLANES, planes, trajectories


def described(plain: Artifact, detector: Detector, **manifest: Any) -> Artifact:
    """An artifact of another detector."""
    looks = artifacts.look_manifests(detector)
    return Artifact.of(detector, plain.manifest.model_copy(update={"looks": looks, **manifest}))


@pytest.fixture
def path(tmp_path: Path, artifact: Artifact) -> Path:  # noqa: F811
    saved = tmp_path / "a.safetensors"
    artifact.save(saved)
    return saved


def changed(path: Path, **tensors: Tensor | None) -> None:
    """Write a file with other tensors, None for one left out, and the digest that it then has."""
    content = path.read_bytes()
    text = artifacts._metadata(content)["manifest"]
    stored = {
        name: tensor
        for name, tensor in (load_tensors(content) | tensors).items()
        if tensor is not None
    }
    digest = artifacts._digest(text, stored)
    path.write_bytes(save_tensors(stored, {"manifest": text, "digest": digest}))


def everything() -> Detector:
    """Scores of every kind, clusters, groups, weights and bands."""
    parts = [Part(PROMPT, name) for name in ("mahalanobis", "tv-reference", "contrast")]
    return Detector.fit(
        {PROMPT: planes(60, 0)},
        {PROMPT: planes(60, 1)},
        parts=parts,
        background={PROMPT: planes(50, 2)},
        clusters={PROMPT: CLUSTERS},
        templates=[n // 4 for n in range(60)],
        groups=["a", "b"] * 30,
        alpha=0.1,
    ).with_bands({PROMPT: planes(60, 1)})


def neighbours() -> tuple[Neighbours, NeighbourNames]:
    """Of four questions and two kinds."""
    space = Space.fit(planes(60, 0), planes(50, 2), rank=3)
    places = space.places(planes(6, 3))
    names = NeighbourNames(
        questions=tuple(NeighbourName(id=str(n), file="walks") for n in range(4)),
        kinds=tuple(KindName(name=name, n_questions=5) for name in ("far", "farther")),
    )
    return Neighbours({PROMPT: look_neighbours(space, places[:4], places[4:])}), names


@pytest.fixture(scope="module")
def all_kinds(artifact: Artifact) -> Artifact:  # noqa: F811
    groups = tuple(GroupManifest(name=name, n_conformal=30) for name in "ab")
    kept, names = neighbours()
    detector = replace(everything(), neighbours=kept)
    return described(artifact, detector, groups=groups, alpha=0.1, neighbours=names)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_no_tensor_may_have_a_number_that_is_none(
    all_kinds: Artifact, tmp_path: Path, value: float
) -> None:
    path = tmp_path / "a.safetensors"
    all_kinds.save(path)
    content = path.read_bytes()
    assert artifacts.load(path).id == all_kinds.id
    seen = set()
    for name, tensor in load_tensors(content).items():
        if not tensor.is_floating_point():
            continue
        broken = tensor.clone()
        # Where a sorted tensor stays sorted.
        broken.view(-1)[0 if value < 0 else -1] = value
        path.write_bytes(content)
        changed(path, **{name: broken})
        with pytest.raises(ArtifactError):
            artifacts.load(path)
        seen.add(name.rpartition(".")[2])
    learned = {"mean", "basis", "weight", "variance", "bias", "centres"}
    kept = {"basis", "questions", "kinds", "usual"}
    assert seen >= learned | kept | {"location", "scale", "calibration", "weights", "band"}


def test_what_is_wrong_is_named(all_kinds: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    all_kinds.save(path)
    content = path.read_bytes()
    stored = load_tensors(content)
    nan = stored["look.0.mean"] * torch.nan
    for name, tensor, says in (
        ("look.0.mean", nan, "it has values that are NaN or infinite"),
        ("look.0.mean", stored["look.0.mean"].double(), "it is torch.float64, not torch.float32"),
        ("look.0.mean", stored["look.0.mean"][:1], "its shape is (1, 8), not (10, 8)"),
        ("look.0.mean", stored["look.0.mean"][:, :4], "its shape is (10, 4), not (10, 8)"),
        ("look.0.weight", stored["look.0.weight"][:, :2], "its shape is (10, 2), not (10, 7)"),
        ("look.0.variance", -stored["look.0.variance"], "it is under 0"),
        ("look.0.scale", stored["look.0.scale"] * 0, "it is not over 0"),
        ("look.0.band", stored["look.0.band"][:, :9], "its shape is (5, 9), not (5, 10)"),
        ("look.0.band", stored["look.0.band"][:3], "its shape is (3, 10), not (5, 10)"),
        ("look.1.band", stored["look.1.band"].flip(0), "its quantiles are not in order"),
        ("look.1.band", stored["look.1.band"].double(), "it is torch.float64, not torch.float32"),
        ("look.2.band", stored["look.2.band"] * torch.nan, "it has values that are NaN"),
        ("look.0.location", stored["look.0.location"][:1], "its shape is (1,), not (2,)"),
        ("look.2.planes", stored["look.2.planes"] + 9, "a layer that is not one of 0 to 9"),
        ("look.2.planes", stored["look.2.planes"] - 9, "a layer that is not one of 0 to 9"),
        ("look.0.clusters.plane", torch.tensor(10), "a layer that is not one of 0 to 9"),
        ("group.1", stored["group.1"][:0], "it has no scores"),
        ("group.1.weights", stored["group.1.weights"][:3], "its shape is (3,), not (30,)"),
        ("calibration.weights", -stored["calibration.weights"], "a share is not in 0 to 1"),
    ):
        path.write_bytes(content)
        changed(path, **{name: tensor.contiguous()})
        with pytest.raises(ArtifactError) as caught:
            artifacts.load(path)
        assert f"cannot be judged by, for its {name!r}: " in caught.value.message
        assert says in caught.value.message


@pytest.mark.parametrize("order", ["descending", "NaN"])
def test_calibration_scores_out_of_order_are_refused(path: Path, order: str) -> None:
    scores = load_tensors(path.read_bytes())["calibration"].flip(0).contiguous()
    if order == "NaN":
        scores[3] = torch.nan
    changed(path, calibration=scores)
    with pytest.raises(CorruptArtifactError, match="calibration scores are NaN or not sorted"):
        artifacts.load(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"look.0.mean": None},
        {"calibration": None},
        {"look.7.mean": torch.zeros(2)},
        {"passenger": torch.zeros(2)},
    ],
    ids=str,
)
def test_all_tensors_that_belong_and_no_others(path: Path, tensors: dict[str, Any]) -> None:
    changed(path, **tensors)
    with pytest.raises(CorruptArtifactError, match="damaged or no artifact"):
        artifacts.load(path)


@pytest.mark.parametrize(
    "edit",
    [
        {"looks": []},
        {"n_layers": N_PLANES},
        {"hidden_size": 10**9},
        {"looks.0.look": "yesterday"},
        {"looks.0.look": "9" * 5000},
        {"looks.0.learned": 1},
        {"looks.1.learned": 0},
        {"looks.0.n_clusters": 10**9},
        {"looks.0.score": "tv-reference"},
        {"looks.0.order": 1},
        {"groups": [{"name": "a", "n_conformal": 5}]},
    ],
    ids=lambda edit: str(edit)[:40],
)
def test_manifests_of_other_numbers_are_refused(path: Path, edit: dict[str, Any]) -> None:
    manifest = json.loads(artifacts._metadata(path.read_bytes())["manifest"])
    for place, value in edit.items():
        holder: Any = manifest
        *way, last = place.split(".")
        for step in way:
            holder = holder[int(step) if step.isdecimal() else step]
        holder[last] = value
    signed(path, manifest)
    with pytest.raises(ArtifactError):
        artifacts.load(path)


# Saving


def poisoned(fitted_look: FittedLook, field: str) -> FittedLook:
    return replace(fitted_look, **{field: getattr(fitted_look, field) * torch.nan})


def test_nothing_is_saved_that_cannot_be_judged_by(
    artifact: Artifact,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.safetensors"
    detector = artifact.detector
    first, *others = detector.looks
    for looks in (
        (poisoned(first, "location"), *others),
        (poisoned(first, "scale"), *others),
        (),
    ):
        with pytest.raises(ArtifactError, match="cannot be judged by"):
            described(artifact, replace(detector, looks=looks)).save(path)
    infinite = torch.full((3,), torch.inf, dtype=torch.float64)
    for scores in (infinite, -infinite):
        with pytest.raises(ArtifactError, match="NaN or infinite"):
            described(artifact, replace(detector, calibration=Calibration(scores))).save(path)
    assert not path.exists()


def test_responses_that_ended_before_every_look_are_calibrated_with(
    artifact: Artifact,  # noqa: F811
    tmp_path: Path,
) -> None:
    rows = trajectories(60, 1)
    rows[:9] = torch.nan
    detector = Detector.fit({4: planes(60, 0)}, {4: Planes.of(rows)}, parts=[Part(4)])
    path = tmp_path / "a.safetensors"
    described(artifact, detector).save(path)
    assert artifacts.load(path).detector.calibration.scores.isneginf().sum() == 9


def test_neighbours_have_numbers_for_all_names_and_names_for_all_numbers(
    all_kinds: Artifact, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    detector, names = all_kinds.detector, all_kinds.manifest.neighbours
    assert names is not None
    fewer = names.model_copy(update={"questions": names.questions[:3]})
    for judging, named, says in (
        (detector, None, "without names"),
        (replace(detector, neighbours=None), names, "names alone"),
        (detector, fewer, "neighbours.0.questions"),
        (detector, names.model_copy(update={"kinds": ()}), "neighbours.0.kinds"),
    ):
        manifest = all_kinds.manifest.model_copy(update={"neighbours": named})
        with pytest.raises(ArtifactError, match=says):
            Artifact.of(judging, manifest).save(path)
    assert not path.exists()


def test_every_kind_of_number_has_a_shape() -> None:
    kinds = {score.kind for score in SCORES.values() if score.kind is not None}
    assert set(_SHAPES) == kinds | {Clusters, Space}
    for kind, shapes in _SHAPES.items():
        assert set(shapes) == {field.name for field in fields(kind)}
