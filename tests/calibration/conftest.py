"""Questions of many templates as a user would calibrate on them, varied and collected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from detector.engine.model.checkpoint import Checkpoint

_SCOPE = Path(__file__).parents[2] / "calibration" / "scope"


@dataclass(frozen=True)
class Collected:
    """Collections of questions as typed, of what `vary` made of them, and of others."""

    typed: Path
    made: tuple[Path, ...]
    background: Path
    held_out: Path
    other: Path

    @property
    def inside(self) -> list[Path]:
        return [self.typed, *self.made]


def collect_files(checkpoint: Checkpoint, files: Sequence[Path], out: Path) -> list[Path]:
    from calibration.collect import QuestionsFile, collect
    from calibration.questions import read_questions
    from detector.manifest import Context
    from detector.trajectory import PROMPT

    found = [QuestionsFile(*read_questions(path), out / path.stem) for path in files]
    collect(checkpoint, found, context=Context(), looks=(PROMPT,), max_length=4096)
    return [file.folder for file in found]


def _shortest(name: str, n: int) -> list[str]:
    """Rows whose text a byte-level model reads quickly, of many kinds."""
    rows = (_SCOPE / f"{name}.jsonl").read_text().splitlines()
    return sorted(rows, key=len)[100 : 100 + n]


@pytest.fixture(scope="session")
def collected(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Collected:
    from calibration.__main__ import main
    from calibration.generate import generate

    folder = tmp_path_factory.mktemp("collected")
    files = {name: folder / f"{name}.jsonl" for name in ("typed", "others", "words")}
    files["typed"].write_text("\n".join(_shortest("written", 150)))
    files["others"].write_text("\n".join(_shortest("background", 40)))
    words = [{"question": text[::-1]} for text, _ in generate(40, seed=0)]
    files["words"].write_text("\n".join(map(json.dumps, words)))
    vary = ["vary", str(files["typed"]), "--out"]
    background = ["--background", str(files["others"])]
    assert main([*vary, str(folder / "made"), *background]) == 0
    assert main([*vary, str(folder / "new"), "--held-out", "--split", "holdout"]) == 0
    made = [folder / "made" / f"{name}.jsonl" for name in ("variations", "dialogues", "pairs")]
    typed, *varied, beside, other = collect_files(
        checkpoint,
        [files["typed"], *made, folder / "made" / "background.jsonl", files["words"]],
        folder / "c",
    )
    (held_out,) = collect_files(checkpoint, [folder / "new" / "variations.jsonl"], folder / "n")
    return Collected(typed, tuple(varied), beside, held_out, other)
