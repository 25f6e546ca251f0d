"""Sets that are made of others by a seed: dialogues, OOD last turns, and the fair comparison.

Each is written as a questions file, so that it is collected, scored and counted as any other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from calibration.bench.scope.result import (
    FAIR_INSIDE,
    FAIR_OUTSIDE,
    PLAIN,
    REWRITTEN,
    Family,
)
from calibration.bench.scope.sets import UNCHANGED, ScopeSet, of_family, read_set
from calibration.dialogues import Message, dialogue
from calibration.questions import Question, key_of
from calibration.variations import read_variations, vary
from detector.atomic import write_atomically
from detector.errors import CalibrationError

N_DIALOGUES, N_FAIR, N_VARIATIONS = 300, 400, 2
SEED = 0
_TRIES = 20

Row = dict[str, Any]


def made_sets(
    sets: Sequence[ScopeSet], held_out: Sequence[str], folder: Path, n: int | None = None
) -> list[ScopeSet]:
    """Dialogues, OOD last turns and the fair sets, of what there is: no MATH, no fair sets.

    `held_out` are further in-scope questions that nothing was calibrated on; `n` bounds each set.
    """
    inside = next(found.questions for found in sets if found.name == UNCHANGED)
    others = of_family(sets, "B")
    math = of_family(sets, "MATH")
    n_dialogues = min(N_DIALOGUES, n or N_DIALOGUES)
    made = [
        write_set(folder / "dialogues.jsonl", "dialogues", dialogue_rows(inside, n_dialogues)),
    ]
    if others or math:
        turns = ood_turn_rows(inside, others, math, n_dialogues)
        made.append(write_set(folder / "ood_last_turns.jsonl", "ood-turns", turns))
    if math:
        texts = [*(question.text for question in inside), *held_out]
        asked = {key_of([{"content": text}]): text for text in texts}
        forms = fair_rows(
            list(asked.values()), [text for found in math for text in found.texts], n or N_FAIR
        )
        made += [write_set(folder / f"{name}.jsonl", "fair", rows) for name, rows in forms.items()]
    return made


def dialogue_rows(inside: Sequence[Question], n: int) -> list[Row]:
    """`n` distinct conversations of in-scope questions, whose follow-ups are never calibrated."""
    return [
        {"messages": messages, "kind": kind}
        for messages, kind in _distinct(_dialogues(inside, "dialogue"), n, len(inside))
    ]


def ood_turn_rows(
    inside: Sequence[Question], others: Sequence[ScopeSet], math: Sequence[ScopeSet], n: int
) -> list[Row]:
    """`n` distinct conversations that are in scope until the last turn, which asks a question of
    MATH or of one of `others`, in turn; their kind is that set.
    """
    draw = random.Random(f"{SEED} last turns")  # noqa: S311 (reproducible, not secret)
    pools = [pool for pool in (others, math) if pool]

    def conversations() -> Iterator[tuple[list[Message], str]]:
        for (messages, _), pool in zip(_dialogues(inside, "last turn"), cycle(pools), strict=False):
            asked = draw.choice(pool)
            last = {"role": "user", "content": draw.choice(asked.questions).text}
            yield [*messages[:-1], last], asked.name

    return [
        {"messages": messages, "kind": kind}
        for messages, kind in _distinct(conversations(), n, len(inside))
    ]


def fair_rows(inside: Sequence[str], outside: Sequence[str], n: int) -> dict[str, list[Row]]:
    """At most `n` questions of each side, as many of both, plain and rewritten alike.

    Differences that remain between the rewritten sides are of the task and not of how it is
    typed: both are drawn from the same rewritings, none of which is ever calibrated on.
    """
    n = min(n, len(inside), len(outside))
    kinds = [kind for kind in read_variations().values() if kind.held_out]
    rows: dict[str, list[Row]] = {}
    for name, texts in ((FAIR_INSIDE, inside), (FAIR_OUTSIDE, outside)):
        draw = random.Random(f"{SEED} {name}")  # noqa: S311 (reproducible, not secret)
        drawn = draw.sample(list(texts), n)
        rows[f"{name}_{PLAIN}"] = [{"question": text} for text in drawn]
        rows[f"{name}_{REWRITTEN}"] = [
            {"question": text, "variations": " ".join(applied)}
            for text, applied in (vary(text, SEED, kinds, N_VARIATIONS) for text in drawn)
        ]
    return rows


def _dialogues(inside: Sequence[Question], what: str) -> Iterator[tuple[list[Message], str]]:
    """Conversations without end, around each question in turn."""
    texts = [question.text for question in inside]
    for number, question in enumerate(cycle(inside)):
        draw = random.Random(f"{SEED} {what} {number}")  # noqa: S311 (reproducible, not secret)
        others = [text for text in texts if text != question.text]
        yield dialogue(question.text, _answer(question), others, draw, held_out=True)


def _answer(question: Question) -> str | None:
    return None if question.answer is None else str(question.answer)


def _distinct(
    conversations: Iterator[tuple[list[Message], str]], n: int, n_questions: int
) -> list[tuple[list[Message], str]]:
    found: dict[str, tuple[list[Message], str]] = {}
    for _ in range(_TRIES * (n + n_questions)):
        messages, kind = next(conversations)
        found.setdefault(key_of(messages), (messages, kind))
        if len(found) == n:
            return list(found.values())
    raise CalibrationError(
        f"{n_questions} in-scope questions make fewer than {n} distinct conversations: add "
        f"questions to {UNCHANGED}.jsonl",
        param="data",
    )


def write_set(path: Path, family: Family, rows: Sequence[Row]) -> ScopeSet:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, lines.encode())
    return read_set(path, family)
