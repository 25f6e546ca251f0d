"""Collect: run the engine over questions and keep the trajectories at every look."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from calibration.collection import CollectionFolder, CollectionRecord, Shard
from calibration.questions import Question
from detector.backend import Ask, Message
from detector.conversation import judged_question
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.text import Text
from detector.errors import CalibrationError, EngineError
from detector.manifest import Context, Source
from detector.trajectory import END, PROMPT_LOOKS, Look, look_name

_SHARD_SIZE = 64


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

    def take(self, ask: Ask) -> Tensor:
        """(looks, L + 1, d), NaN at the looks that the response ended before."""
        kept = self._kept.pop(ask, None)
        return torch.full(self._shape, torch.nan) if kept is None else kept


@dataclass(frozen=True)
class QuestionsFile:
    """The distinct questions of one file, and the folder to collect them into."""

    questions: Sequence[Question]
    source: Source
    folder: Path


def collect(
    checkpoint: Checkpoint,
    files: Sequence[QuestionsFile],
    *,
    context: Context,
    looks: Sequence[Look],
    n_slots: int = 32,
    max_length: int = 2048,
) -> None:
    """Collect the questions that the files' folders lack, with one engine for all of them.

    Only the prompt is run when no look needs a response. Raises CalibrationError when a
    look lies beyond max_tokens or a folder holds something else, PromptTooLongError when a
    question does not fit, and EngineError when the model's numbers for one are NaN or infinite.
    """
    beyond = [look_name(look) for look in looks if look > context.max_tokens]
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
            )
        )
        for file in files
    ]
    text = Text(checkpoint.tokenizer, context.template, context.text)
    keeper = _Keeper(looks, model.num_hidden_layers + 1, model.hidden_size)
    engine = Engine(
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
            asks = {
                _ask(text, question, context, max_length, prompt_only): question
                for question in file.questions
                if question.key not in kept
            }
            # Neighbours of like length waste the least padding.
            engine.submit(*sorted(asks, key=lambda ask: len(ask.prompt)))
            _run(engine, text, asks, keeper, file)
    finally:
        engine.close()


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


def _run(
    engine: Engine,
    text: Text,
    asks: Mapping[Ask, Question],
    keeper: _Keeper,
    file: QuestionsFile,
) -> None:
    """Run what was submitted of one file, and write it a shard at a time."""
    store = CollectionFolder(file.folder)
    tokens: dict[Ask, list[int]] = {ask: [] for ask in asks}
    finished: list[Ask] = []

    def flush() -> None:
        if finished:
            responses = [tokens.pop(ask) for ask in finished]
            store.append(
                Shard(
                    keys=tuple(asks[ask].key for ask in finished),
                    trajectories=torch.stack([keeper.take(ask) for ask in finished]),
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
        while engine.busy:
            for step in engine.step():
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
            if len(finished) >= _SHARD_SIZE:
                flush()
        flush()


def default_max_tokens(looks: Sequence[Look]) -> int:
    """As many tokens as the looks need; a look at the end has no such number.

    Raises CalibrationError when the end is among them.
    """
    if END in looks:
        raise CalibrationError(
            "look 'end' needs the length at which responses end: give --max-tokens",
            param="max-tokens",
        )
    return max(1, *looks)
