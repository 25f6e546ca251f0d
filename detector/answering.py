"""Answers to a question that is doubted, asked and scored: the same in calibration and in serving.

`Answering` makes what is to be asked of a backend, is fed the steps, and gives the scores. All
answers go out at once, and those to one prompt share its prefill. The same question draws the same
answers: asking again is no second chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from detector.answers import Entails, clusters_of
from detector.backend import Ask, Codec, Message, Sampling, Step
from detector.canonical import TextVersion, as_judged
from detector.conversation import user_turns
from detector.errors import EngineError
from detector.opinion_record import Asking, OpinionScore

if TYPE_CHECKING:
    from torch import Tensor

_N_SEEDS = 2**31
"""A CPU generator takes in 32 bits."""


@dataclass
class _Answer:
    """What has come of one answer so far."""

    tokens: list[int] = field(default_factory=list)
    log_likelihood: float = 0.0
    ended: bool = False
    averaged: Tensor | None = None


class Answering:
    """The answers to one question. `asks` are those without the example, and after them, where
    persuasion is wanted, those with it.
    """

    def __init__(
        self,
        codec: Codec,
        asking: Asking,
        messages: Sequence[Message],
        text: TextVersion,
        *,
        persuasion: bool,
        timeout_seconds: float | None = None,
    ) -> None:
        self._codec = codec
        question = "\n\n".join(as_judged(turn, text) for turn in user_turns(messages))
        conversations = [_conversation(asking, question)]
        if persuasion:
            conversations.append(_conversation(asking, question, with_example=True))
        self._n = asking.n_answers
        self.asks = tuple(
            ask
            for each in conversations
            for ask in _asks(codec.encode_conversation(each), asking, timeout_seconds, persuasion)
        )
        self._answers = {ask: _Answer() for ask in self.asks}

    def push(self, step: Step) -> None:
        """Raises EngineError where an answer cannot be had."""
        answer = self._answers[step.ask]
        if step.token is not None:
            assert step.logprobs is not None
            answer.log_likelihood += step.logprobs.logprob
            answer.tokens.append(step.token)
        if step.finish is not None:
            if step.finish not in ("stop", "length"):
                raise EngineError(f"an answer ended as {step.finish!r}, not by its tokens")
            answer.ended, answer.averaged = step.finish == "stop", step.averaged

    @property
    def n_tokens(self) -> int:
        """Read and generated: a prompt is read once for all answers to it."""
        read = sum(len(ask.prompt) for ask in self.asks if ask.first is None)
        return read + sum(len(answer.tokens) for answer in self._answers.values())

    def score(self, name: OpinionScore, entails: Entails | None = None) -> float:
        """Of all answers, once each has ended: semantic entropy, or Coherent Persuasion."""
        from detector.uncertainty import coherent_persuasion, semantic_entropy

        plain, shown = self._parts()
        if name == "uncertainty":
            likelihoods = [each.log_likelihood / len(each.tokens) for each in plain]
            return semantic_entropy(likelihoods, self._clusters(plain, entails))
        return coherent_persuasion(
            _distributions(shown),
            self._clusters(shown, entails),
            _distributions(plain),
            self._clusters(plain, entails),
        )

    def texts(self, *, with_example: bool = False) -> list[str]:
        """What was answered."""
        return [self._text(each) for each in self._parts()[with_example]]

    def _parts(self) -> tuple[list[_Answer], list[_Answer]]:
        answers = list(self._answers.values())
        return answers[: self._n], answers[self._n :]

    def _clusters(self, answers: Sequence[_Answer], entails: Entails | None) -> tuple[int, ...]:
        return clusters_of([self._text(each) for each in answers], entails)

    def _text(self, answer: _Answer) -> str:
        decoder = self._codec.stream()
        shown = answer.tokens[:-1] if answer.ended else answer.tokens
        return "".join(map(decoder.push, shown)) + decoder.flush()


def _conversation(asking: Asking, question: str, *, with_example: bool = False) -> list[Message]:
    def asked(text: str) -> Message:
        return {"role": "user", "content": f"{text}\n\n{asking.instruction}".strip()}

    example = asking.example
    before: list[Message] = [
        asked(example.question),
        {"role": "assistant", "content": example.answer},
    ]
    return [*(before if with_example else ()), asked(question)]


def _asks(
    prompt: tuple[int, ...], asking: Asking, timeout_seconds: float | None, persuasion: bool
) -> list[Ask]:
    digest = hashlib.sha256(repr(prompt).encode()).digest()
    seed = int.from_bytes(digest[:8]) % _N_SEEDS
    first = Ask(
        prompt,
        max_tokens=asking.max_tokens,
        sampling=Sampling(temperature=asking.temperature),
        seed=seed,
        n_logprobs=0,
        timeout_seconds=timeout_seconds,
        uncounted=True,
        averaged=persuasion,
    )
    others = (replace(first, first=first, seed=seed + n) for n in range(1, asking.n_answers))
    return [first, *others]


def _distributions(answers: Sequence[_Answer]) -> Tensor:
    import torch

    found = [each.averaged for each in answers if each.averaged is not None]
    if len(found) < len(answers) or not found:
        raise EngineError("this engine tells no average distribution of an answer")
    return torch.stack(found)
