"""Questions through one round of checking each, and what came of it, on disk.

A folder with `rounds.json` (what was asked of which model, behind which guard), `flags.json` (by
question, whether it is flagged at its prompt) and `rounds.jsonl`, a line a question, written as
they end: an interrupted run resumes where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from calibration.questions import Question
from detector.answers import number_of
from detector.atomic import write_atomically
from detector.backend import Ask, Backend, Codec
from detector.conversation import judged_question
from detector.critique import told
from detector.detector import Detector
from detector.engine_record import EngineRecord
from detector.errors import CalibrationError, EngineError, QuestionsError
from detector.judge import Judge, Judgement
from detector.manifest import Context
from detector.recheck_record import Rechecking
from detector.rechecking import MORE_OOD, Outcome, Round

RECORD, ROWS, FLAGS = "rounds.json", "rounds.jsonl", "flags.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Asked(_Frozen):
    """What rounds must have in common to be counted together."""

    artifact: str
    weights: str
    dtype: str
    engine: EngineRecord
    asking: Rechecking


class Checked(_Frozen):
    """One question's round. `right` and `right_after` are of the first answer and of the second,
    None out of scope, where answers are not compared; `told` is what the critique calls the first.
    """

    key: str
    in_scope: bool
    flagged: bool
    p_value: float
    p_first: float | None
    p_second: float | None
    right: bool | None
    right_after: bool | None
    told: bool | None
    sent: bool
    reason: str | None
    n_tokens: int
    n_plain: int
    seconds: float
    texts: tuple[str, str, str]

    @property
    def is_more_ood(self) -> bool:
        return self.reason == MORE_OOD


class Kept:
    """The folder of rounds."""

    def __init__(self, folder: Path, asked: Asked) -> None:
        """Raises CalibrationError where it holds rounds of something else, or is damaged."""
        self._path, self._flags = folder / ROWS, folder / FLAGS
        self.rows: dict[tuple[str, bool], Checked] = {}
        self.flags: dict[str, bool] = {}
        record = folder / RECORD
        fix = f"choose another --keep or remove {str(folder)!r}"
        if record.exists():
            try:
                known = Asked.model_validate_json(record.read_bytes())
                lines = self._path.read_text().splitlines() if self._path.exists() else []
                found = [Checked.model_validate_json(line) for line in lines]
                if self._flags.exists():
                    flags = json.loads(self._flags.read_bytes())
                    self.flags = TypeAdapter(dict[str, bool]).validate_python(flags)
            except (ValidationError, ValueError):
                raise CalibrationError(f"{str(folder)!r} is damaged: {fix}", param="keep") from None
            if known != asked:
                names = [name for name, value in known if value != getattr(asked, name)]
                raise CalibrationError(
                    f"the rounds in {str(folder)!r} differ in {names[0]}: {fix}", param="keep"
                )
            self.rows = {(row.key, row.in_scope): row for row in found}
        else:
            write_atomically(record, asked.model_dump_json(indent=1).encode())

    def add_flags(self, flags: Mapping[str, bool]) -> None:
        self.flags |= flags
        write_atomically(self._flags, json.dumps(self.flags).encode())

    def add(self, row: Checked) -> None:
        self.rows[row.key, row.in_scope] = row
        lines = "".join(f"{each.model_dump_json()}\n" for each in self.rows.values())
        write_atomically(self._path, lines.encode())


@dataclass(frozen=True)
class Checking:
    """A backend whose observer is `judge.observe`, and what rounds are made by; `at_once` rounds
    are under way together.
    """

    backend: Backend
    judge: Judge
    codec: Codec
    context: Context
    asking: Rechecking
    max_length: int
    at_once: int = 16

    @property
    def detector(self) -> Detector:
        return self.judge.detector

    def flagged(self, questions: Sequence[Question]) -> list[bool]:
        """Which of them are flagged at the prompt. Raises EngineError where one cannot be judged,
        and PromptTooLongError where one does not fit.
        """
        found: list[bool] = []
        for start in range(0, len(questions), self.at_once):
            judgements = [
                Judgement(detector=self.detector) for _ in questions[start:][: self.at_once]
            ]
            asks = []
            for question, judgement in zip(questions[start:], judgements, strict=False):
                judged = judged_question(
                    self.codec, self.context.judged, question.messages, self.max_length
                )
                prompt = (
                    self.codec.encode_conversation(question.messages)
                    if judged is None
                    else judged.tokens
                )
                asks.append(Ask(prompt, question=judged, response=()))
                self.judge.watch(asks[-1], judgement)
            self.backend.submit(*asks)
            while self.backend.busy:
                self.backend.step()
            for judgement in judgements:
                verdict = judgement.verdict
                if verdict is None or verdict.is_ood is None:
                    raise EngineError("a question cannot be judged at its prompt")
                found.append(verdict.is_ood)
        return found

    def rounds(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Outcome, float]]:
        """Each question's as it ends, and the seconds it took beside the others. Raises EngineError
        where the model's numbers are NaN, and PromptTooLongError where a round does not fit.
        """
        waiting = list(reversed(questions))
        under_way: dict[Ask, tuple[Question, Round, float]] = {}
        while waiting or under_way:
            while waiting and len(under_way) < self.at_once:
                question = waiting.pop()
                one = Round(
                    self.codec,
                    self.asking,
                    self.context,
                    self.detector,
                    question.messages,
                    max_length=self.max_length,
                )
                self._go_on(under_way, question, one, time.perf_counter())
            for step in self.backend.step():
                question, one, began = under_way[step.ask]
                one.push(step)
                if step.finish is None:
                    continue
                del under_way[step.ask]
                if one.due is None:
                    yield question, one.outcome, time.perf_counter() - began
                else:
                    self._go_on(under_way, question, one, began)

    def _go_on(
        self,
        under_way: dict[Ask, tuple[Question, Round, float]],
        question: Question,
        one: Round,
        began: float,
    ) -> None:
        due = one.due
        assert due is not None
        self.judge.watch(due.ask, due.judgement)
        self.backend.submit(due.ask)
        under_way[due.ask] = question, one, began


def check(
    checking: Checking,
    questions: Sequence[Question],
    kept: Kept,
    *,
    in_scope: bool,
) -> Iterator[Checked]:
    """Each question's round, those that are kept first; its flag has been kept before. Raises as
    `Checking.rounds` does.
    """
    known = [kept.rows.get((question.key, in_scope)) for question in questions]
    yield from (row for row in known if row is not None)
    left = [each for each, row in zip(questions, known, strict=True) if row is None]
    for question, outcome, seconds in checking.rounds(left):
        right = number_in(question.answer) if in_scope else None
        answer, critique, second = outcome.texts
        row = Checked(
            key=question.key,
            in_scope=in_scope,
            flagged=kept.flags[question.key],
            p_value=outcome.p_value,
            p_first=None if outcome.first is None else outcome.first.p_value,
            p_second=None if outcome.second is None else outcome.second.p_value,
            right=number_of(answer) == right if in_scope else None,
            right_after=number_of(second) == right if in_scope else None,
            told=told(critique),
            sent=outcome.sends,
            reason=outcome.reason,
            n_tokens=outcome.n_tokens,
            n_plain=outcome.n_plain,
            seconds=seconds,
            texts=outcome.texts,
        )
        kept.add(row)
        yield row


def number_in(answer: Any) -> Fraction | None:
    return number_of(str(answer))


def require_numbers(questions: Sequence[Question], path: Path) -> None:
    """Raises QuestionsError unless every answer has a number."""
    without = sum(number_in(each.answer) is None for each in questions)
    if without:
        raise QuestionsError(
            f"questions file {str(path)!r}: {without} of {len(questions)} answers have no number, "
            "by which answers are compared: leave these rows out",
            param="questions",
        )
