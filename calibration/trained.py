"""Which questions a model was fine-tuned on. It remembers its answers to them, so that they are no
sample of the questions that it will be asked: thresholds set by them are too low for new ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

RECORD = "finetune.json"
"""The file in a checkpoint's folder that says what it was trained on, and how."""
QUESTIONS = "questions"
"""Its keys of the questions."""


def trained_on(model: str) -> frozenset[str]:
    """The keys of the questions that a checkpoint's folder says it was fine-tuned on."""
    try:
        found = json.loads((Path(model) / RECORD).read_text())
    except (OSError, ValueError):
        return frozenset()
    keys = found.get(QUESTIONS, []) if isinstance(found, dict) else []
    return frozenset(keys)


def warning(model: str, keys: Iterable[str]) -> str | None:
    """What is wrong with calibrating a model on questions with these keys, if anything is."""
    asked = list(keys)
    if not (known := trained_on(model).intersection(asked)):
        return None
    return (
        f"{len(known)} of {len(asked)} questions are among those that {model!r} was fine-tuned on: "
        "it remembers them, and alpha would not hold for new ones; leave them out of the file"
    )
