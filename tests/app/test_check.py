"""`trajguard check`: what `serve` would start with, in lines, and an exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import trajguard
from app.settings import default_artifact
from detector import artifact as artifacts
from detector.artifact import Artifact
from tests.opined import with_opinions


@pytest.fixture
def path(artifact: Artifact, tmp_path: Path) -> Path:
    saved = tmp_path / "a.safetensors"
    artifact.save(saved)
    return saved


@pytest.fixture
def folder(artifact: Artifact, tmp_path: Path) -> Path:
    """What a model's folder holds, of one with the artifact's sizes."""
    made = tmp_path / "model"
    made.mkdir()
    sizes = {
        "hidden_size": artifact.manifest.hidden_size,
        "num_hidden_layers": artifact.manifest.n_layers,
    }
    (made / "config.json").write_text(json.dumps(sizes))
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"")
    return made


def check(capsys: pytest.CaptureFixture[str], *flags: Any) -> tuple[int, str, str]:
    status = trajguard.main(["check", *map(str, flags)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_what_is_in_order(
    artifact: Artifact, path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = check(capsys, "--artifact", path, "--model", folder)
    assert (status, err) == (0, "")
    settings, judged, model = out.splitlines()
    assert settings == "settings: in order"
    assert judged.startswith(f"artifact: {artifact.id} in order: 'tiny generated questions' for")
    assert "looks prompt, 4, alpha 0.05 (marginal), threshold" in judged
    assert model == f"model: {str(folder)!r} is there; its weights were not read"


def test_the_packaged_artifact_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = check(capsys)
    assert status == 0
    assert artifacts.load(default_artifact()).id in out
    assert "model: 'smollm2-135m-instruct' is no folder and was not looked at" in out


def test_a_setting_at_fault_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = check(capsys, "--mode", "dance")
    assert (status, out) == (2, "")
    assert err.startswith("settings: error [bad_setting]: TRAJGUARD_MODE is 'dance'")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--alpha", "0.0001"], "error [too_few_questions]: alpha 0.0001 cannot be kept"),
        (["--dtype", "float16"], "error [artifact_mismatch]: the artifact was calibrated in"),
        (["--artifact", "none"], "error [artifact_error]: artifact 'none' is not a file"),
        (["--artifact", "pyproject.toml"], "error [corrupt_artifact]: artifact 'pyproject.toml'"),
    ],
)
def test_an_artifact_at_fault_is_named(
    path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    status, out, err = check(capsys, "--artifact", path, *flags)
    assert (status, out) == (1, "settings: in order\n")
    assert err.startswith(f"artifact: {says}")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "has no config.json: save the model"),
        ("tokenizer.json", None, "has no tokenizer.json: save the model"),
        ("model.safetensors", None, "has no weights (*.safetensors): save the model"),
        ("config.json", "[]", "is no JSON object"),
        ("config.json", "{", "is no JSON object"),
        ("config.json", "[" * 100_000, "is no JSON object"),
        ("config.json", '{"hidden_size": 7}', "calibrated for a model of hidden_size 32"),
        ("config.json", '{"num_hidden_layers": 7}', "and '"),
    ],
)
def test_a_model_s_folder_at_fault_is_named(
    path: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    says: str,
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    status, _, err = check(capsys, "--artifact", path, "--model", folder)
    assert status == 1
    assert err.startswith("model: error [")
    assert says in err


def test_a_folder_that_is_not_there_is_named(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = check(capsys, "--artifact", path, "--model", tmp_path / "none")
    assert status == 1
    assert "is not there: correct the path" in err


@pytest.mark.parametrize(
    ("name", "command"),
    [("uncertainty", "trajguard second-opinion"), ("recheck", "trajguard recheck")],
)
def test_a_second_opinion_that_the_artifact_has_not_is_named(
    name: str, command: str, path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--artifact", path, "--model", folder, "--second-opinion", name)
    status, _, err = check(capsys, *flags)
    assert status == 1
    assert command in " ".join(err.split())


def test_a_second_opinion_that_it_has_is_in_order(
    artifact: Artifact, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "opined.safetensors"
    with_opinions(artifact, 0.0).save(saved)
    flags = ("--artifact", saved, "--model", folder, "--second-opinion", "uncertainty")
    assert check(capsys, *flags)[0] == 0
