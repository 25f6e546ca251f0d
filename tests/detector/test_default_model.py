"""The default model's folder is whole or made again, whatever a killed conversion left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from detector.engine.model import default_model
from detector.engine.model.default_model import NAME, default_checkpoint
from detector.errors import CheckpointError
from tests.tiny import tiny_checkpoint


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Conversions, which make a tiny model here."""
    made: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        checkpoint = tiny_checkpoint()
        checkpoint.model.save_pretrained(folder)
        checkpoint.tokenizer.save_pretrained(folder)
        made.append(folder)

    monkeypatch.setattr(default_model, "_gguf_file", lambda: tmp_path / "none.gguf")
    monkeypatch.setattr(default_model, "_convert", convert)
    monkeypatch.setenv("TRAJGUARD_CACHE", str(tmp_path / "cache"))
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_converted_once_and_nothing_else_is_left(converted: list[Path]) -> None:
    folder = default_checkpoint()
    assert default_checkpoint() == folder
    assert len(converted) == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _zeros(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))


@pytest.mark.parametrize(
    "breaks",
    [
        _without("model.safetensors"),
        _without("tokenizer.json"),
        _without("config.json"),
        _cut,
        _empty,
        _zeros,
    ],
)
def test_a_folder_that_is_not_whole_is_made_again(
    converted: list[Path], breaks: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = default_checkpoint()
    whole = contents(folder)
    breaks(folder)
    assert default_checkpoint() == folder
    assert contents(folder) == whole
    assert len(converted) == 2
    assert "is not whole" in caplog.text
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_another_process_made_meanwhile_is_taken(
    converted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = default_model._convert

    def beside_another(gguf: Path, folder: Path) -> None:
        convert(gguf, folder)
        other = folder.parent.parent / f"{NAME}-{default_model._VERSION}"
        other.mkdir()
        convert(gguf, other)
        (other / "theirs").write_text("")

    monkeypatch.setattr(default_model, "_convert", beside_another)
    assert (default_checkpoint() / "theirs").is_file()


def test_what_killed_conversions_left_is_removed_in_time(converted: list[Path]) -> None:
    parent = default_model.cache_folder()
    old, new = parent / f".{NAME}-old", parent / f".{NAME}-new"
    for path in (old, new):
        path.mkdir(parents=True)
    os.utime(old, (0, 0))
    default_checkpoint()
    assert not old.exists()
    assert new.exists()


def test_a_full_disk_is_told_and_leaves_nothing(
    converted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(default_model, "_convert", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        default_checkpoint()
    assert list(default_model.cache_folder().iterdir()) == []
