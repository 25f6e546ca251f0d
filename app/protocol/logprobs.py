"""The wire models of log-probabilities, as OpenAI's chat completions carry them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from detector.backend import TokenLogprobs
from detector.engine.model.text import Text

_LEAST = -9999.0
"""OpenAI's value for next to impossible; JSON has no minus infinity."""


class TopLogprob(BaseModel):
    token: str = Field(description="the token's text; bytes of part of a character show as U+FFFD")
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """Natural logarithm, before temperature, penalties and any limit on the draw."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None

    @classmethod
    def of(cls, logprobs: Sequence[TokenLogprobs], text: Text) -> ChoiceLogprobs:
        return cls(
            content=[
                TokenLogprob(
                    **_entry(each.token, each.logprob, text).model_dump(),
                    top_logprobs=[_entry(token, logprob, text) for token, logprob in each.top],
                )
                for each in logprobs
            ]
        )


def _entry(token: int, logprob: float, text: Text) -> TopLogprob:
    written = text.token_bytes(token)
    return TopLogprob(
        token=written.decode(errors="replace"), logprob=max(logprob, _LEAST), bytes=list(written)
    )
