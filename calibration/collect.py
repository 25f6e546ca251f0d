"""Collect: run the engine over questions and keep the trajectories at every look.

Responses are drawn as serving draws them; or they are given, and read in one teacher-forced pass
as `POST /v1/score` reads them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from calibration.collection import CollectionFolder, CollectionRecord, Shard
from calibration.engines import open_backend, record
from calibration.questions import Question
from calibration.responses import lengths_in_words
from detector.backend import Ask, Backend, Message
from detector.conversation import judged_question
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.text import Text
from detector.engine_record import EngineName
from detector.errors import CalibrationError, EngineError
from detector.manifest import Context, Source
from detector.trajectory import END, PROMPT_LOOKS, Look, look_name, taken_at

log = logging.getLogger(__name__)

MAX_LENGTH = 2048
"""Tokens of prompt and response that are read at most."""
SHARD_SIZE = 64
"""Questions of a shard."""


class _Keeper:
    """An observer that keeps each request's trajectories until they are written."""

    def __init__(self, looks: Sequence[Look], n_planes: int, width: int) -> None:
        self._looks = looks
        self._shape = (len(looks), n_planes, width)
        self._kept: dict[Ask, Tensor] = {}

    def __call__(self, look: Look, asks: Sequence[Ask], trajectories: Tensor) -> list[bool]:
        for ask, trajectory in zip(asks, trajectories, strict=True):
            if ask not in self._kept:
                self._kept[ask] = torch.full(self._shape, torch.nan)
            self._kept[ask][self._looks.index(look)] = trajectory.cpu()
        return [False] * len(asks)

    def take(self, ask: Ask, *, is_cut: bool) -> Tensor:
        """(looks, L + 1, d), NaN at the looks that the response ended before, and at the end of
        one that goes on after what was read.
        """
        kept = self._kept.pop(ask, None)
        if kept is None:
            return torch.full(self._shape, torch.nan)
        if is_cut and END in self._looks:
            # It was made in inference mode, where alone it may be changed.
            kept = kept.clone()
            kept[self._looks.index(END)] = torch.nan
        return kept


@dataclass(frozen=True)
class QuestionsFile:
    """The distinct questions of one file, and the folder to collect them into. `responses` are
    those to each, by its key, where the context has given ones.
    """

    questions: Sequence[Question]
    source: Source
    folder: Path
    responses: Mapping[str, str] | None = None


def collect(
    checkpoint: Checkpoint,
    files: Sequence[QuestionsFile],
    *,
    context: Context,
    looks: Sequence[Look],
    n_slots: int = 32,
    max_length: int = MAX_LENGTH,
    engine: EngineName = "own",
) -> None:
    """Collect the questions that the files' folders lack, with one engine for all of them.

    Only the prompt is run when no look needs a response. Raises CalibrationError when a
    look lies beyond max_tokens or a folder holds something else, PromptTooLongError when a
    question does not fit, and EngineError when the model's numbers for one are NaN or infinite.
    """
    beyond = [look_name(look) for look in looks if taken_at(look) > context.max_tokens]
    if beyond:
        raise CalibrationError(
            f"looks {', '.join(beyond)} lie beyond max_tokens {context.max_tokens}: raise "
            "--max-tokens or leave them out",
            param="looks",
        )
    model = checkpoint.model.config.get_text_config()
    # What a folder cannot take is said before hours of work on those before it.
    done = [
        CollectionFolder(file.folder).open(
            CollectionRecord(
                model_name=checkpoint.name,
                n_layers=model.num_hidden_layers,
                hidden_size=model.hidden_size,
                fingerprint=checkpoint.fingerprint,
                context=context,
                looks=tuple(look_name(look) for look in looks),
                source=file.source,
                engine=record(engine, checkpoint),
            )
        )
        for file in files
    ]
    text = Text(checkpoint.tokenizer, context.template, context.text)
    keeper = _Keeper(looks, model.num_hidden_layers + 1, model.hidden_size)
    backend = open_backend(
        engine,
        checkpoint,
        looks=looks,
        observer=keeper,
        n_slots=n_slots,
        max_length=max_length,
        max_queue=max(len(file.questions) for file in files),
    )
    prompt_only = PROMPT_LOOKS.issuperset(looks)
    try:
        for file, kept in zip(files, done, strict=True):
            asks: dict[Ask, Question] = {}
            cut: set[Ask] = set()
            lengths: list[int] = []
            for question in file.questions:
                ask = _ask(text, question, context, max_length, prompt_only)
                if file.responses is not None:
                    ask, is_cut = _given(text, ask, file.responses[question.key], max_length)
                    lengths.append(len(ask.response or ()))
                    cut |= {ask} if is_cut else set()
                if question.key not in kept:
                    asks[ask] = question
            if file.responses is not None:
                found = lengths_in_words(lengths, len(cut), looks, context.max_tokens)
                log.info("%s: %s", file.source.name, found)
            # Neighbours of like length waste the least padding.
            backend.submit(*sorted(asks, key=lambda ask: ask.n_positions))
            _run(backend, text, asks, cut, keeper, file)
    finally:
        backend.close()


def _ask(
    text: Text, question: Question, context: Context, max_length: int, prompt_only: bool
) -> Ask:
    """Judged at the prompt as serving does. Where a question is judged, it is answered alone and
    as it was typed, the one prompt whose responses serving judges too.
    """
    judged = judged_question(text, context.judged, question.messages, max_length)
    if judged is not None and prompt_only:
        return Ask(judged.tokens, question=judged, response=())
    alone: Message = {"role": "user", "content": question.text.strip()}
    prompt = text.encode_conversation(question.messages if judged is None else [alone])
    if prompt_only:
        return Ask(prompt, response=())
    return Ask(
        prompt,
        max_tokens=context.max_tokens,
        sampling=context.sampling,
        seed=question.seed,
        question=judged,
    )


def _given(text: Text, ask: Ask, response: str, max_length: int) -> tuple[Ask, bool]:
    """The same question with the response to it to read, as far as there is room and the context
    takes it, and whether it goes on after that.
    """
    most = max(0, min(ask.max_tokens, max_length - len(ask.prompt)))
    tokens = text.encode_response(response, most)
    return replace(ask, response=tokens[:most]), len(tokens) > most


def _run(
    backend: Backend,
    text: Text,
    asks: Mapping[Ask, Question],
    cut: Set[Ask],
    keeper: _Keeper,
    file: QuestionsFile,
) -> None:
    """Run what was submitted of one file, and write it a shard at a time."""
    store = CollectionFolder(file.folder)
    tokens: dict[Ask, list[int]] = {ask: list(ask.response or ()) for ask in asks}
    finished: list[Ask] = []

    def flush() -> None:
        if finished:
            responses = [tokens.pop(ask) for ask in finished]
            store.append(
                Shard(
                    keys=tuple(asks[ask].key for ask in finished),
                    trajectories=torch.stack(
                        [keeper.take(ask, is_cut=ask in cut) for ask in finished]
                    ),
                    tokens=tuple(tuple(response) for response in responses),
                    responses=tuple(text.decode(response) for response in responses),
                    texts=tuple(asks[ask].text for ask in finished),
                    fields=tuple(asks[ask].fields for ask in finished),
                )
            )
            finished.clear()

    n_questions = len(file.questions)
    with tqdm(
        total=n_questions,
        initial=n_questions - len(asks),
        desc=file.source.name,
        unit="question",
        file=sys.stderr,
    ) as progress:
        while backend.busy:
            for step in backend.step():
                if step.finish == "failed":
                    raise EngineError(
                        f"the model's numbers for question {asks[step.ask].key} of "
                        f"{file.source.name} are NaN or infinite: check the weights, or collect "
                        "with --dtype float32"
                    )
                if step.token is not None:
                    tokens[step.ask].append(step.token)
                if step.finish is not None:
                    finished.append(step.ask)
                    progress.update()
            if len(finished) >= SHARD_SIZE:
                flush()
        flush()


def default_max_tokens(looks: Sequence[Look], *, given: bool = False) -> int:
    """As many tokens as the looks need; a look at the end has no such number, but that of a slot
    where responses are given, which end by themselves.

    Raises CalibrationError when the end is among them and responses are to be drawn.
    """
    if END in looks and given:
        return MAX_LENGTH
    if END in looks:
        raise CalibrationError(
            "look 'end' needs the length at which responses end: give --max-tokens",
            param="max-tokens",
        )
    return max(1, *map(taken_at, looks))
