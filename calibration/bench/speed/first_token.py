"""First token: how much later it comes where the question is judged, one request at a time.

A question that is canonical as it was typed is judged in the prompt's own prefill; one that is
not, or that follows earlier messages, in a second sequence of it. Each way to ask is timed in the
same rounds, guarded and not in turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from calibration.bench.speed.contenders import ANY_TOKEN, judge_of
from calibration.generate import generate
from detector.artifact import Artifact
from detector.backend import Ask, Message
from detector.conversation import judged_question
from detector.detector import Detector
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint, load_checkpoint
from detector.engine.model.text import Text

_MAX_LENGTH = 1024

Way = Callable[[str], list[Message]]


def _said(*turns: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns)]


WAYS: dict[str, Way] = {
    "canonical as typed": lambda question: _said(question),
    "not canonical": lambda question: _said(f"**{question}**\n\n"),
    "follow-up": lambda question: _said(question, "Add them up.", "why?"),
}


@dataclass(frozen=True)
class FirstToken:
    """Milliseconds to the first token of each round, guarded and not."""

    way: str
    guarded: tuple[float, ...]
    unguarded: tuple[float, ...]

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Guarded over unguarded: median, least and most of the rounds."""
        rounds = [on / off for on, off in zip(self.guarded, self.unguarded, strict=True)]
        return statistics.median(rounds), min(rounds), max(rounds)

    def __str__(self) -> str:
        middle, low, high = self.ratio
        return (
            f"{self.way:20} {statistics.median(self.guarded):6.1f} ms guarded, "
            f"{statistics.median(self.unguarded):6.1f} ms unguarded: "
            f"{middle:.2f} times ({low:.2f} to {high:.2f})"
        )


def first_token(
    artifact: Artifact, model: str, dtype: str | None, *, rounds: int, n: int
) -> Iterator[FirstToken]:
    """Each way to ask `n` generated questions, one after the other, in every round."""
    context = artifact.manifest.context
    checkpoint = load_checkpoint(model, dtype or artifact.manifest.fingerprint.dtype)
    text = Text(checkpoint.tokenizer, context.template, context.text)
    questions = [question for question, _ in generate(n, seed=0)]
    asks = {
        name: [_ask(text, artifact, way(question)) for question in questions]
        for name, way in WAYS.items()
    }
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in asks}
    for number in tqdm(range(rounds), unit="round"):
        detectors = [artifact.detector, None]
        for detector in detectors[:: 1 if number % 2 == 0 else -1]:
            with _engine(checkpoint, detector) as engine:
                for name, several in asks.items():
                    _milliseconds(engine, several[0])
                    times = [_milliseconds(engine, ask) for ask in several]
                    found[name][detector is None].append(statistics.fmean(times))
    for name, (guarded, unguarded) in found.items():
        yield FirstToken(name, tuple(guarded), tuple(unguarded))


def _ask(text: Text, artifact: Artifact, messages: Sequence[Message]) -> Ask:
    return Ask(
        text.encode_conversation(messages),
        max_tokens=1,
        sampling=ANY_TOKEN,
        question=judged_question(text, artifact.manifest.context.judged, messages, _MAX_LENGTH),
    )


@contextmanager
def _engine(checkpoint: Checkpoint, detector: Detector | None) -> Iterator[Engine]:
    engine = Engine(
        checkpoint,
        looks={fitted.look for fitted in detector.looks} if detector else (),
        observer=judge_of(detector, checkpoint).observe if detector else None,
        n_slots=1,
        max_length=_MAX_LENGTH,
    )
    try:
        yield engine
    finally:
        engine.close()


def _milliseconds(engine: Engine, ask: Ask) -> float:
    began = time.perf_counter()
    engine.submit(ask)
    while engine.busy:
        engine.step()
    return 1000 * (time.perf_counter() - began)
