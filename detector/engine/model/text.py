"""Text to token ids and back: questions, conversations, responses, streams."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateError
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast

from detector.backend import Message
from detector.engine.model.token_bytes import TokenBytes
from detector.errors import CheckpointError, InvalidRequestError

CHAT = "chat"
"""The template name that stands for the tokenizer's own chat template."""


class Text:
    r"""A tokenizer under one prompt template.

    `template` is "chat" for the tokenizer's chat template, or a text containing
    {question}, such as "Q: {question}\nA:". Raises CheckpointError when the tokenizer has
    no chat template to use, or the text has no {question}.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: str = CHAT) -> None:
        if template == CHAT and not tokenizer.chat_template:
            raise CheckpointError(
                "the tokenizer has no chat template: calibrate with a template of your own, "
                "such as --template 'Q: {question}\\nA:'",
                param="template",
            )
        if template != CHAT and "{question}" not in template:
            raise CheckpointError(
                f"template {template!r} does not contain {{question}}: write where it goes",
                param="template",
            )
        self.template = template
        self._tokenizer = tokenizer
        self._token_bytes = TokenBytes(tokenizer)

    def encode_question(self, question: str) -> tuple[int, ...]:
        """A question rendered alone, ready for the response. White space at its ends is
        dropped, in calibration and serving alike.
        """
        return self.encode_conversation([{"role": "user", "content": question.strip()}])

    def encode_conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Messages with `role` and `content`, ready for the response.

        Raises InvalidRequestError when the chat template refuses them.
        """
        if self.template != CHAT:
            return tuple(self._tokenizer.encode(self._plain(messages)))
        try:
            rendered = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InvalidRequestError(
                f"messages are refused by the model's chat template ({type(error).__name__}): "
                "send roles in an order that the model supports",
                param="messages",
            ) from None
        assert isinstance(rendered, str)
        return tuple(self._tokenizer.encode(rendered, add_special_tokens=False))

    def _plain(self, messages: Sequence[Message]) -> str:
        before, after = self.template.split("{question}", 1)
        parts = []
        for message in messages:
            if message["role"] == "user":
                parts.append(before + message["content"] + after)
            elif message["role"] == "assistant":
                parts.append(" " + message["content"] + "\n\n")
            else:
                parts.append(message["content"] + "\n\n")
        return "".join(parts)

    def encode_response(self, response: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(response, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, which need not be whole characters."""
        return self._token_bytes.of(token)

    def stream(self) -> TextStream:
        return TextStream(self._tokenizer)


class TextStream:
    """Turns one response's tokens into text as they come, never half a character."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that is complete now that `token` has come, possibly empty."""
        return self._decoder.step(self._tokenizer, token) or ""
