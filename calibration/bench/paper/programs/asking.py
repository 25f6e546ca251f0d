"""The model's functions: asked of it with its trajectories kept, or read from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from calibration.bench.paper.programs.solving import Problem
from calibration.collect import QuestionsFile, collect
from calibration.collection import CollectionFolder
from calibration.questions import read_questions, read_rows
from calibration.responses import read_responses
from detector.atomic import write_atomically
from detector.engine.model.checkpoint import Checkpoint
from detector.errors import CalibrationError
from detector.manifest import Context
from detector.trajectory import END, PROMPT

Problems = Mapping[str, Sequence[Problem]]
"""By set."""


def asked(
    checkpoint: Checkpoint, sets: Problems, folder: Path, max_tokens: int
) -> dict[str, list[str]]:
    """What the model writes to each problem, by set: greedy, and only what the folder lacks."""
    path = _write_prompts(sets, folder)
    questions, source = read_questions(path)
    file = QuestionsFile(questions, source, folder / "collected")
    context = Context(text="typed", max_tokens=max_tokens)
    collect(checkpoint, [file], context=context, looks=(PROMPT, END))
    collection = CollectionFolder(file.folder).read()
    return _by_set(sets, path, dict(zip(collection.keys, collection.responses, strict=True)))


def given(path: Path, sets: Problems, folder: Path) -> dict[str, list[str]]:
    """The responses of a file to problems' prompts. Raises CalibrationError where one has none."""
    prompts = _write_prompts(sets, folder)
    found = read_responses(path, judged="question").responses
    rows, _ = read_rows(prompts)
    missing = sum(row.key not in found for row in rows)
    if missing:
        raise CalibrationError(
            f"{str(path)!r} has no response to {missing} of {len(rows)} problems: answer the "
            f"questions of {str(prompts)!r}, with a `response` beside each",
            param="responses",
        )
    return _by_set(sets, prompts, found)


def _by_set(sets: Problems, path: Path, written: Mapping[str, str]) -> dict[str, list[str]]:
    rows = iter(read_rows(path)[0])
    return {name: [written[next(rows).key] for _ in found] for name, found in sets.items()}


def _write_prompts(sets: Problems, folder: Path) -> Path:
    """One file for all of them, so that the model is asked many at a time."""
    path = folder / "prompts.jsonl"
    lines = [
        json.dumps({"id": f"{name} {place}", "question": problem.prompt})
        for name, problems in sets.items()
        for place, problem in enumerate(problems)
    ]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return path
