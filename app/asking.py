"""From what a client sends to what is asked of the backend, or why it cannot be.

Bounds first, then tokens, then what the artifact was calibrated for; the result is frozen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.policy import Mode, narrow
from app.settings import Settings
from app.wire.openai import ChatRequest
from app.wire.openai import Message as ChatMessage
from app.wire.score import ScoreRequest
from detector.backend import Ask, Codec, Message, RenderedQuestion, Sampling
from detector.conversation import judged_question, user_turns
from detector.errors import InvalidRequestError, PromptTooLongError
from detector.judge import Exclusions, Judgement
from detector.manifest import Manifest, system_prompt_digest

T = TypeVar("T")

MAX_TOKENS = 512
"""Response length where neither the request, a setting nor the artifact says one."""


MAX_BODY_BYTES = 4 * 2**20
"""The longest body, whatever the model."""

_ESCAPED = 6
"""Bytes that JSON takes at most for one of a text: \\u0041."""

_BESIDE_TEXT = 64 * 2**10
"""Bytes for all of a body that is not the text of messages."""


@dataclass(frozen=True)
class Asked:
    """What one HTTP request asks of the backend: one response or more to one prompt, each
    with its judgement to be.
    """

    asks: tuple[Ask, ...]
    judgements: tuple[Judgement, ...]
    mode: Mode


class Asking:
    """Admits requests to a model of one `max_length` and to the artifact of `manifest`."""

    def __init__(
        self, settings: Settings, manifest: Manifest, codec: Codec, model_id: str, max_length: int
    ) -> None:
        self._settings = settings
        self._manifest = manifest
        self._context = manifest.context
        self._codec = codec
        self._model_id = model_id
        self._max_length = max_length
        # A text of more bytes cannot be `max_length` tokens.
        self.max_text_bytes = max_length * codec.longest_token
        self._looks_at_end = any(look.look == "end" for look in manifest.looks)

    @property
    def max_body_bytes(self) -> int:
        """A body that is longer holds no prompt that fits a slot."""
        return min(MAX_BODY_BYTES, _ESCAPED * self.max_text_bytes + _BESIDE_TEXT)

    def chat(self, body: ChatRequest) -> Asked:
        """Responses to generate. Raises InvalidRequestError."""
        n = self._require_served(body)
        mode = narrow(self._settings.mode, body.trajguard.mode)
        messages = _plain(body.messages)
        asked = user_turns(messages)[-1]
        sampling = self._sampling(body)
        prompt = self._prompt(messages)
        max_tokens = body.response_length or self._default_max_tokens(len(prompt))
        if sampling.min_tokens > max_tokens:
            raise InvalidRequestError(
                f"min_tokens {sampling.min_tokens} is more than the response may have "
                f"({max_tokens} tokens): lower it or raise max_tokens",
                param="min_tokens",
            )
        question = self._question(messages)
        exclusions = self._exclusions(messages, sampling, max_tokens)
        group = self._group(asked, body.trajguard.fields)
        first = Ask(
            prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            seed=body.seed,
            question=question,
            n_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            timeout_seconds=min(
                self._settings.timeout_seconds, _or(body.trajguard.timeout_seconds, math.inf)
            ),
        )
        asks = (first, *(_another(first, index) for index in range(1, n)))
        refuse = mode == "refuse"
        return Asked(asks, tuple(Judgement(group, exclusions, refuse) for _ in asks), mode)

    def score(self, body: ScoreRequest) -> Asked:
        """A prompt and its response, if there is one, to read. Raises InvalidRequestError."""
        messages = _plain(body.messages)
        asked = user_turns(messages)[-1]
        self._require_may_fit([body.response or ""], "response")
        prompt = self._prompt(messages)
        response = self._codec.encode_response(body.response or "", self._max_length)
        self._require_room(response, "response")
        question = self._question(messages)
        # A response made elsewhere may have ended by itself, or been cut at its length.
        length = max(len(response), self._context.max_tokens)
        exclusions = self._exclusions(messages, self._context.sampling, length)
        ask = Ask(
            prompt,
            sampling=self._context.sampling,
            question=question,
            response=response,
            timeout_seconds=self._settings.timeout_seconds,
        )
        judgement = Judgement(self._group(asked, body.fields), exclusions)
        return Asked((ask,), (judgement,), self._settings.mode)

    def _require_served(self, body: ChatRequest) -> int:
        """The number of choices, once all is known to be served that costs nothing to know."""
        if body.model is not None and body.model != self._model_id:
            raise InvalidRequestError(
                f"model {body.model!r} is not served: use {self._model_id!r} or leave it out",
                param="model",
            )
        n, most = _or(body.n, 1), min(self._settings.max_choices, self._settings.max_queue)
        if n > most:
            raise InvalidRequestError(
                f"n {n} is more than the {most} choices that this service gives at once: ask for "
                "fewer",
                param="n",
            )
        if body.top_logprobs and not body.logprobs:
            raise InvalidRequestError(
                f"top_logprobs {body.top_logprobs} needs logprobs: send logprobs true with it",
                param="top_logprobs",
            )
        return n

    def _prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Its tokens, known to fit a slot before anything else is worked out of the messages."""
        self._require_may_fit([message["content"] for message in messages], "messages")
        prompt = self._codec.encode_conversation(messages, self._max_length)
        self._require_room(prompt, "messages")
        return prompt

    def _require_room(self, tokens: Sequence[int], param: str) -> None:
        if len(tokens) > self._max_length:
            raise PromptTooLongError(
                f"{param} take more tokens than the {self._max_length} that a slot holds: shorten "
                "them",
                param=param,
            )

    def _require_may_fit(self, texts: Sequence[str], param: str) -> None:
        """Raises PromptTooLongError where no tokens are as long as the texts."""
        n_bytes = sum(len(text.encode()) for text in texts)
        if n_bytes > self.max_text_bytes:
            raise PromptTooLongError(
                f"{param} have {n_bytes} bytes of text; the {self._max_length} tokens of a slot "
                f"have at most {self.max_text_bytes}: shorten them",
                param=param,
            )

    def _sampling(self, body: ChatRequest) -> Sampling:
        """The calibrated sampling, with what the request says instead."""
        asked = {name: getattr(body, name) for name in Sampling.model_fields}
        said = {name: value for name, value in asked.items() if value is not None}
        return Sampling(**(self._context.sampling.model_dump() | said))

    def _default_max_tokens(self, n_prompt: int) -> int:
        """The setting's; else the calibrated one, if the artifact judges where responses end;
        as far as there is room for it.
        """
        calibrated = self._context.max_tokens if self._looks_at_end else MAX_TOKENS
        wanted = _or(self._settings.max_tokens, calibrated)
        return max(1, min(wanted, self._max_length - n_prompt))

    def _question(self, messages: Sequence[Message]) -> RenderedQuestion | None:
        """What is judged in place of the prompt, if anything is."""
        return judged_question(self._codec, self._context.judged, messages, self._max_length)

    def _exclusions(
        self, messages: Sequence[Message], sampling: Sampling, max_tokens: int
    ) -> Exclusions:
        """Which looks the calibration says nothing of."""
        if self._settings.uncalibrated == "include":
            return Exclusions()
        prompt = response = end = None
        if self._context.judged == "question":
            if len(messages) > 1:
                response = "the served prompt is more than the question alone"
        elif system_prompt_digest(messages) not in self._context.system_prompts:
            prompt = response = "the system prompt was not calibrated"
        if sampling != self._context.sampling:
            response = response or "the sampling was not calibrated"
        if max_tokens != self._context.max_tokens:
            end = f"max_tokens was calibrated at {self._context.max_tokens}"
        return Exclusions(prompt, response, end)

    def _group(self, asked: str, fields: dict[str, str]) -> str | None:
        grouping = self._manifest.grouping
        return None if grouping is None else grouping.group_of(asked, fields)


def _another(first: Ask, index: int) -> Ask:
    """One more choice. Seeds count up from the first one's, so that responses differ and can
    be had again.
    """
    return Ask(
        first.prompt,
        max_tokens=first.max_tokens,
        sampling=first.sampling,
        seed=None if first.seed is None else first.seed + index,
        first=first,
        n_logprobs=first.n_logprobs,
        timeout_seconds=first.timeout_seconds,
    )


def _plain(messages: Sequence[ChatMessage]) -> list[Message]:
    return [{"role": message.role, "content": message.text} for message in messages]


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
