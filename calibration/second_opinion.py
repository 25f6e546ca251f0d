"""Second opinions calibrated: the answers of flagged questions in scope, and what they scored.

Of questions in scope, one half by their keys calibrates and the other is held out; of each, those
that stage one flags are asked for answers. OOD questions that it flags are asked alike, to see
what a second opinion loses.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from calibration.questions import Question
from detector.answering import Answering
from detector.answers import Entails, clusters_of
from detector.artifact import Artifact
from detector.backend import Ask, Step
from detector.conversation import judged_question
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.numerics import record_of
from detector.engine.model.text import Text
from detector.errors import CalibrationError, EngineError
from detector.judge import Judge, Judgement
from detector.opinion_record import Asking, OpinionRecord, OpinionScores
from detector.uncertainty import discrete_semantic_entropy

FEWEST = 19
"""Flagged questions, below which no p-value comes to 0.05."""

_MAX_LENGTH = 2048
_TOGETHER = 64
_N_SLOTS = 16


@dataclass(frozen=True)
class Opined:
    """What one flagged question's answers scored and cost. `discrete` is semantic entropy by the
    shares of answers alone, for comparison.
    """

    key: str
    uncertainty: float
    persuasion: float
    discrete: float
    tokens: int
    seconds: float


class Asker:
    """Has questions judged by stage one and, where that flags them, answered; one engine for both.
    `keep` is a file of what was answered before, by which a run resumes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        artifact: Artifact,
        asking: Asking,
        alpha: float,
        entails: Entails | None = None,
        keep: Path | None = None,
    ) -> None:
        context = artifact.manifest.context
        self._context = context
        self._codec = Text(checkpoint.tokenizer, context.template, context.text)
        detector = artifact.detector.at(alpha, artifact.detector.guarantee)
        self._detector = detector.to(checkpoint.model.device)
        self._judge = Judge(self._detector)
        self._asking = asking
        self._entails = entails
        self._keep = keep
        # What answers depend on beside the question, and what flags do.
        self._name = f"{artifact.manifest.fingerprint.weights[:12]} {asking.model_dump_json()}"
        self._judged_by = f"{artifact.id} at {alpha:g}"
        rows = [] if keep is None or not keep.exists() else _rows(keep)
        self._known = _opined(row for row in rows if row["of"] == self._name)
        self._flags = {row["key"]: row["flagged"] for row in rows if row["of"] == self._judged_by}
        self._engine = Engine(
            checkpoint,
            looks=self._judge.looks,
            observer=self._judge.observe,
            n_slots=max(_N_SLOTS, 2 * asking.n_answers),
            max_length=_MAX_LENGTH,
            max_queue=max(_TOGETHER, 2 * asking.n_answers),
        )

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def flagged(
        self, questions: Sequence[Question], what: str, most: int | None = None
    ) -> tuple[list[Question], int]:
        """Those that stage one flags at their prompt, and how many it judged, which are all unless
        `most` are flagged before.
        """
        found: list[Question] = []
        n = 0
        batches = range(0, len(questions), _TOGETHER)
        for start in tqdm(batches, desc=f"judging {what}", file=sys.stderr):
            batch = questions[start : start + _TOGETHER]
            self._flag([each for each in batch if each.key not in self._flags])
            found += [each for each in batch if self._flags[each.key]]
            n += len(batch)
            if most is not None and len(found) >= most:
                break
        return found, n

    def _flag(self, batch: Sequence[Question]) -> None:
        judgements = [Judgement(detector=self._detector) for _ in batch]
        asks = [self._trace(each) for each in batch]
        for ask, judgement in zip(asks, judgements, strict=True):
            self._judge.watch(ask, judgement)
        self._run(asks, lambda _: None)
        for each, judgement in zip(batch, judgements, strict=True):
            verdict = judgement.verdict
            flagged = verdict is not None and "prompt" in verdict.flagged_stages
            self._flags[each.key] = flagged
            self._write({"of": self._judged_by, "key": each.key, "flagged": flagged})

    def opined(self, questions: Sequence[Question], what: str) -> list[Opined]:
        """What the answers to each score, in order."""
        return [
            self._known.get(each.key) or self._opined(each)
            for each in tqdm(questions, desc=f"asking {what}", file=sys.stderr)
        ]

    def _opined(self, question: Question) -> Opined:
        began = time.perf_counter()
        answering = Answering(
            self._codec, self._asking, question.messages, self._context.text, persuasion=True
        )
        self._run(answering.asks, answering.push)
        opined = Opined(
            key=question.key,
            uncertainty=answering.score("uncertainty", self._entails),
            persuasion=answering.score("persuasion", self._entails),
            discrete=discrete_semantic_entropy(clusters_of(answering.texts(), self._entails)),
            tokens=answering.n_tokens,
            seconds=time.perf_counter() - began,
        )
        self._known[question.key] = opined
        self._write({"of": self._name} | asdict(opined))
        return opined

    def _write(self, row: dict[str, object]) -> None:
        if self._keep is not None:
            with self._keep.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def _trace(self, question: Question) -> Ask:
        judged = judged_question(self._codec, self._context.judged, question.messages, _MAX_LENGTH)
        prompt = (
            self._codec.encode_conversation(question.messages) if judged is None else judged.tokens
        )
        return Ask(prompt, question=judged, response=())

    def _run(self, asks: Sequence[Ask], push: Callable[[Step], object]) -> None:
        if asks:
            self._engine.submit(*asks)
        while self._engine.busy:
            for step in self._engine.step():
                if step.finish == "failed":
                    raise EngineError("the model's numbers for a question are NaN or infinite")
                push(step)


def halves(questions: Iterable[Question]) -> tuple[list[Question], list[Question]]:
    """Those that calibrate and those held out: distinct questions, dealt by their keys."""
    distinct = {each.key: each for each in questions}
    parts: tuple[list[Question], list[Question]] = ([], [])
    for key in sorted(distinct, key=lambda key: key[::-1]):
        # A key's first digits decide its split of a collection.
        parts[int(key[-8:], 16) % 2].append(distinct[key])
    return parts


@dataclass(frozen=True)
class Found:
    """The flagged questions in scope of each half and, of OOD ones, all that were asked, with how
    many there are of each.
    """

    calibration: list[Opined]
    holdout: list[Opined]
    ood: list[Opined]
    n_calibration: int
    n_holdout: int
    n_ood: int
    n_ood_flagged: int


def find(
    asker: Asker,
    inside: Sequence[Question],
    outside: Sequence[Question],
    *,
    everything: bool = False,
    most: int | None = None,
) -> Found:
    """Have them judged, and those that are flagged answered: `everything` of what is in scope
    instead, and no more than `most` of each part.

    Raises CalibrationError where fewer than `FEWEST` are left to calibrate by.
    """
    calibrating, held_out = halves(inside)
    distinct = sorted({each.key: each for each in outside}.values(), key=lambda q: q.key[::-1])
    known, _ = asker.flagged(calibrating, "in scope")
    held, _ = asker.flagged(held_out, "held out")
    if everything:
        known = calibrating
    if len(known) < FEWEST:
        raise CalibrationError(
            f"{len(known)} of {len(calibrating)} questions in scope are flagged, and {FEWEST} "
            "are needed to calibrate by: give more questions, a higher --alpha, or --of all, which "
            "promises nothing",
            param="questions",
        )
    flagged, n_ood = asker.flagged(distinct, "OOD", most)
    # The joint rate on the holdout is of all that are flagged there.
    return Found(
        calibration=asker.opined(known[:most], "in scope"),
        holdout=asker.opined(held, "held out"),
        ood=asker.opined(flagged[:most], "OOD"),
        n_calibration=len(calibrating),
        n_holdout=len(held_out),
        n_ood=n_ood,
        n_ood_flagged=len(flagged),
    )


def record(
    checkpoint: Checkpoint,
    found: Found,
    asking: Asking,
    alpha: float,
    sources: dict[str, str],
    *,
    everything: bool,
) -> OpinionRecord:
    """What the artifact is to hold."""
    return OpinionRecord(
        asking=asking,
        population="all" if everything else "flagged",
        alpha=alpha,
        calibration=scores_of(found.calibration),
        holdout=scores_of(found.holdout),
        n_holdout=found.n_holdout,
        dtype=checkpoint.fingerprint.dtype,
        engine=record_of(checkpoint.model.device),
        sources=sources,
    )


def scores_of(opined: Sequence[Opined]) -> OpinionScores:
    return OpinionScores(
        uncertainty=tuple(sorted(each.uncertainty for each in opined)),
        persuasion=tuple(sorted(each.persuasion for each in opined)),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _opined(rows: Iterable[dict[str, Any]]) -> dict[str, Opined]:
    names = Opined.__dataclass_fields__
    return {row["key"]: Opined(**{name: row[name] for name in names}) for row in rows}
