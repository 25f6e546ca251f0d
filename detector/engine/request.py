"""One request to the engine, with everything that is true of it alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import LogitsProcessorList

from detector.backend import Sampling, TokenLogprobs

Finish = Literal["stop", "length", "judged", "traced", "cancelled", "expired", "failed"]
"""Why a request ended: an end token, max_tokens, the observer, a trace's end, `cancel`, its
deadline, or numbers of its own that are NaN or infinite."""


@dataclass(eq=False)
class Request:
    """A prompt to generate from, or a prompt and response to trace (teacher-forced).

    `question`, where given, is judged at the prompt look in place of `prompt`. With
    `response` given nothing is generated, and `max_tokens` and `sampling` have no part.

    `first`, where given, is another request for the same prompt, submitted before this one:
    the prompt looks are taken there alone, and if it ends without a token, so does this one.
    `n_logprobs` asks for the log-probabilities of each token and of that many likely ones.
    `timeout_seconds` runs from `submit`.
    """

    prompt: tuple[int, ...]
    max_tokens: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    question: tuple[int, ...] | None = None
    response: tuple[int, ...] | None = None
    first: Request | None = None
    n_logprobs: int | None = None
    timeout_seconds: float | None = None

    # What the engine knows of it while it runs. `likelihood` sums the columns of
    # `sampling.likelihood` over the tokens generated, if the engine keeps them.
    generated: list[int] = field(default_factory=list)
    likelihood: torch.Tensor | None = None
    n_cached: int = 0
    cancelled: bool = False
    deadline: float = math.inf
    finish: Finish | None = None
    processors: LogitsProcessorList | None = None
    generator: torch.Generator | None = None

    @property
    def n_positions(self) -> int:
        """The most positions that the request can come to occupy in one sequence."""
        if self.response is not None:
            return len(self.prompt) + len(self.response)
        return len(self.prompt) + self.max_tokens


@dataclass(frozen=True)
class Step:
    """What one engine step did for one request: a token, an end, or both.

    `logprobs` are the token's, if the request asked for them.
    """

    request: Request
    token: int | None = None
    finish: Finish | None = None
    logprobs: TokenLogprobs | None = None
