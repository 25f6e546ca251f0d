"""A few questions of each file, of those whose own words fall in the holdout split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from calibration.questions import Question, read_questions, split_of
from detector.atomic import write_atomically


def sample(files: Sequence[Path], n: int, longest: int) -> list[Question]:
    """`n` of each file, at most `longest` characters long: the first ones by their keys' digits
    from the end, which depend on words, numbers and signs.
    """
    chosen: list[Question] = []
    for path in files:
        questions, _ = read_questions(path)
        held = [
            question
            for question in sorted(questions, key=lambda question: question.key[::-1])
            if split_of(question.key) == "holdout" and len(question.text) <= longest
        ]
        chosen += held[:n]
    return chosen


def write_sample(path: Path, questions: Sequence[Question]) -> None:
    """As a questions file, without answers."""
    lines = [json.dumps({"question": question.text}) for question in questions]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
