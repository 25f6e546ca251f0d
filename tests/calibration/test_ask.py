"""Which questions are asked of a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from calibration.ask import choose
from calibration.generate import generate
from calibration.questions import Split, split_of
from calibration.templates import templates_of
from detector.errors import CalibrationError


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of 40 questions, in two forms, 20 of them in both."""
    questions = [question for question, _ in generate(60, seed=7)]
    lines, cells = tmp_path / "q.jsonl", tmp_path / "q.csv"
    lines.write_text("\n".join(json.dumps({"prompt": question}) for question in questions[:40]))
    cells.write_text("\n".join(["prompt", *(f'"{question}"' for question in questions[20:])]))
    return [lines, cells]


def test_all_are_asked_unless_some_are_to_be_drawn(files: list[Path]) -> None:
    every = choose(files, None, None, None)
    assert len({question.key for question in every}) == len(every) == 60
    assert choose(files, "prompt", None, None) == every
    assert choose(files, None, None, 7) == choose(files[::-1], None, None, 7) == every[:7]
    holdout = choose(files, None, "holdout", None, known_templates=True)
    assert holdout == [question for question in every if split_of(question.key) == "holdout"]
    # By template otherwise: no form of a sentence is in two splits.
    splits = [choose(files, None, split, None) for split in get_args(Split)]
    assert sum(map(len, splits)) == 60
    labels = templates_of([question.text for split in splits for question in split])
    places = [place for place, split in enumerate(splits) for _ in split]
    assert len(set(zip(labels, places, strict=True))) == len(set(labels))


def test_more_than_there_are_cannot_be_drawn(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="holds 60 distinct questions, 61 were asked for"):
        choose(files, None, None, 61)
    (tmp_path / "one.jsonl").write_text('{"question": "What is 1 + 2?"}')
    with pytest.raises(CalibrationError, match="the holdout split of the files holds no question"):
        choose([tmp_path / "one.jsonl"], None, "holdout", None)
