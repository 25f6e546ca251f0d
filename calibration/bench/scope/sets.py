"""The sets around a scope: files whose names begin with a family's letter, and MATH's.

A_ in scope, from elsewhere; P_ in scope, rewritten; B_ other kinds of question; C_ borderline;
D_ in disguise. This file knows nothing of any one set but P_00_unchanged, which others are made of.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.bench.scope.result import FAMILIES, Family
from calibration.questions import Question, read_questions
from detector.errors import CalibrationError
from detector.manifest import Source

UNCHANGED = "P_00_unchanged"

_NAME = re.compile(r"([ABCDP])_.+|(MATH)_.+")


@dataclass(frozen=True)
class ScopeSet:
    """One set: its distinct questions, in order; its family says whether they are in scope."""

    name: str
    family: Family
    questions: tuple[Question, ...]
    source: Source

    @property
    def texts(self) -> list[str]:
        return [question.text for question in self.questions]

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """What each question's `kind` says, where every one has it."""
        kinds = [question.fields.get("kind") for question in self.questions]
        return None if None in kinds else tuple(kind for kind in kinds if kind is not None)


def family_of(name: str) -> Family | None:
    """What the name of a file says; None where it says nothing."""
    found = _NAME.fullmatch(name)
    family = found and (found[1] or found[2])
    return next((known for known in FAMILIES if known == family), None)


def read_sets(data: Path, math: Sequence[Path], n: int | None = None) -> list[ScopeSet]:
    """The sets of a folder and MATH's files by name, the first `n` questions of each.

    Raises QuestionsError as `read_questions` does, and CalibrationError where there is none, a
    name says nothing of where a set belongs, or P_00_unchanged is missing.
    """
    paths = [*sorted(data.glob("*.jsonl")), *math]
    families = {path: family_of(path.stem) for path in paths}
    astray = sorted(path.name for path, family in families.items() if family is None)
    if astray:
        raise CalibrationError(
            f"the names of {', '.join(astray)} say nothing of the scope: begin them with A_, P_, "
            "B_, C_, D_ or MATH_",
            param="data",
        )
    if UNCHANGED not in {path.stem for path in paths}:
        raise CalibrationError(
            f"{str(data)!r} has no {UNCHANGED}.jsonl, which dialogues and rewritings are made of: "
            "add one of in-scope questions",
            param="data",
        )
    return [read_set(path, family, n) for path, family in families.items() if family is not None]


def read_set(path: Path, family: Family, n: int | None = None) -> ScopeSet:
    """One file, its first `n` questions alone if `n` is given: then it is another source."""
    questions, source = read_questions(path)
    if n is not None and n < len(questions):
        questions = questions[:n]
        digest = hashlib.sha256(f"first {n} {source.sha256}".encode()).hexdigest()
        source = Source(name=source.name, n_questions=n, sha256=digest)
    return ScopeSet(path.stem, family, tuple(questions), source)


def of_family(sets: Sequence[ScopeSet], *families: Family) -> list[ScopeSet]:
    return [found for found in sets if found.family in families]
