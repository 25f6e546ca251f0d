"""What every contract asks of its requests: that they fit, and what is judged of them by what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.errors import ModelNotFoundError
from app.policy import Modes
from app.settings import Settings
from detector.backend import Codec, Message, RenderedQuestion, Sampling, ToolDefinition
from detector.conversation import judged_question, user_turns
from detector.errors import InvalidRequestError, PromptTooLongError
from detector.judge import Exclusions, Judgement
from detector.manifest import Manifest, system_prompt_digest
from detector.trajectory import END, PROMPT_LOOKS, parse_look, taken_at

MAX_BODY_BYTES = 4 * 2**20
"""The longest body, whatever the model."""

_ESCAPED = 6
"""Bytes that JSON takes at most for one of a text: \\u0041."""

_BESIDE_TEXT = 192 * 2**10
"""Bytes for all of a body that is not the text of messages, the largest schema included."""


class Admission:
    """Admits requests to a model of one `max_length` and to the artifact of `manifest`."""

    def __init__(
        self, settings: Settings, manifest: Manifest, codec: Codec, model_id: str, max_length: int
    ) -> None:
        self.settings = settings
        self.context = manifest.context
        self.codec = codec
        self.max_length = max_length
        # A text of more bytes cannot be `max_length` tokens.
        self.max_text_bytes = max_length * codec.longest_token
        at_response = {parse_look(look.look) for look in manifest.looks} - PROMPT_LOOKS
        self.looks_at_end = END in at_response
        # Of a response's tokens, all that the looks see, however long it is.
        self.n_seen = (
            max_length if self.looks_at_end else max(map(taken_at, at_response), default=0)
        )
        self._grouping = manifest.grouping
        self._model_id = model_id

    @property
    def max_body_bytes(self) -> int:
        """A body that is longer holds no prompt that fits a slot."""
        return min(MAX_BODY_BYTES, _ESCAPED * self.max_text_bytes + _BESIDE_TEXT)

    def require_model(self, name: str | None) -> None:
        """Raises ModelNotFoundError for the name of a model that is not the one served."""
        known = {self._model_id, *self.settings.names}
        if name is not None and name not in known and "*" not in known:
            raise ModelNotFoundError(
                f"model {name!r} is not served: use {self._model_id!r} or leave it out",
                param="model",
            )

    def require_alpha(self, alpha: float | None) -> None:
        """Raises InvalidRequestError for an alpha that the settings do not allow a request."""
        allowed = self.settings.alphas
        if alpha is not None and alpha not in allowed:
            named = ", ".join(f"{each:g}" for each in allowed)
            fix = f"ask for one of {named}" if allowed else "no request may choose one"
            raise InvalidRequestError(
                f"trajguard.alpha {alpha:g} is not allowed here: leave it out ({fix})",
                param="trajguard.alpha",
            )

    def require_choices(self, n: int) -> None:
        """Raises InvalidRequestError for more choices than may be asked for."""
        most = min(self.settings.max_choices, self.settings.max_queue)
        if n > most:
            raise InvalidRequestError(
                f"n {n} is more than the {most} choices that this service gives at once: ask for "
                "fewer",
                param="n",
            )

    def require_may_fit(self, texts: Sequence[str], param: str) -> None:
        """Raises PromptTooLongError where no tokens are as long as the texts."""
        n_bytes = sum(len(text.encode()) for text in texts)
        if n_bytes > self.max_text_bytes:
            raise PromptTooLongError(
                f"{param}: {n_bytes} bytes of text; the {self.max_length} tokens of a slot have "
                f"at most {self.max_text_bytes}: shorten the text",
                param=param,
            )

    def require_room(self, tokens: Sequence[int], param: str) -> None:
        """Raises PromptTooLongError for more tokens than a slot holds."""
        if len(tokens) > self.max_length:
            raise PromptTooLongError(
                f"{param}: more tokens than the {self.max_length} that a slot holds: shorten the "
                "text",
                param=param,
            )

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[ToolDefinition] = ()
    ) -> tuple[int, ...]:
        """Its tokens, known to fit a slot before anything else is worked out of the messages."""
        calls = [message["tool_calls"] for message in messages if "tool_calls" in message]
        contents = [message["content"] for message in messages]
        self.require_may_fit([*contents, *_texts(calls)], "messages")
        self.require_may_fit([*_texts(tools)], "tools")
        prompt = self.codec.encode_conversation(messages, self.max_length, tools)
        self.require_room(prompt, "messages")
        return prompt

    def require_question(self, messages: Sequence[Message], param: str = "messages") -> None:
        """Raises InvalidRequestError where the user said nothing, or nothing at last: there is
        no question to judge or to answer.
        """
        user_turns(messages)
        last = max(n for n, message in enumerate(messages) if message["role"] == "user")
        if not messages[last]["content"].strip():
            name = f"{param}.{last}.content"
            raise InvalidRequestError(
                f"{name} is empty: write the question in the user's last message", param=name
            )

    def question(self, messages: Sequence[Message]) -> RenderedQuestion | None:
        """What is judged in place of the prompt, if anything is."""
        return judged_question(self.codec, self.context.judged, messages, self.max_length)

    def judgement(
        self,
        messages: Sequence[Message],
        fields: dict[str, str],
        exclusions: Exclusions,
        modes: Modes,
    ) -> Judgement:
        """What is to come of a request: nothing ends one but in mode "refuse"."""
        refuses = modes.refuses
        group = None
        if self._grouping is not None:
            group = self._grouping.group_of(user_turns(messages)[-1], fields)
        return Judgement(group, exclusions, refuses, refuses & self.settings.fails_closed)

    def exclusions(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        max_tokens: int,
        stop_texts: Sequence[str],
        *,
        has_tools: bool = False,
        is_held: bool = False,
    ) -> Exclusions:
        """Which looks the calibration says nothing of, where the response is to be generated."""
        if self.settings.uncalibrated == "include":
            return Exclusions()
        prompt, response = self._unlike_calibrated(messages, has_tools=has_tools)
        end = None
        if self.context.responses != "own":
            response = response or "this model's own responses were not calibrated"
        if is_held:
            response = response or "masked decoding was not calibrated"
        if sampling != self.context.sampling:
            response = response or "the sampling was not calibrated"
        if max_tokens != self.context.max_tokens:
            end = f"max_tokens was calibrated at {self.context.max_tokens}"
        elif stop_texts:
            # One that is not met matters too: of all responses those are left that never say it.
            end = "stop texts were not calibrated"
        return Exclusions(prompt, response, end)

    def exclusions_of_given(self, messages: Sequence[Message], n_tokens: int) -> Exclusions:
        """The same where a response of so many tokens is given, whoever made it."""
        if self.settings.uncalibrated == "include":
            return Exclusions()
        prompt, response = self._unlike_calibrated(messages)
        end = None
        if self.context.responses != "given":
            response = response or "responses from elsewhere were not calibrated"
        if n_tokens > self.context.max_tokens:
            end = f"responses were calibrated up to {self.context.max_tokens} tokens"
        return Exclusions(prompt, response, end)

    def _unlike_calibrated(
        self, messages: Sequence[Message], *, has_tools: bool = False
    ) -> tuple[str | None, str | None]:
        """Why no look at the prompt, and none at the response, counts for these messages."""
        if self.context.judged == "question":
            alone = len(messages) == 1 and not has_tools
            return None, None if alone else "the served prompt is more than the question alone"
        reason = "the system prompt was not calibrated"
        if system_prompt_digest(messages) in self.context.system_prompts:
            if not has_tools:
                return None, None
            reason = "tools were not calibrated"
        return reason, reason


def _texts(values: Sequence[Any]) -> Iterator[str]:
    """Every text in them, however deep."""
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
