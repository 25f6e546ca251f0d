"""The seam between what wants generations and what runs a model.

What is asked of a backend (`Ask`), what it gives back (`Step`), and what it shows on the way
(`Observer`). `detector.engine` is one backend; nothing here needs torch or a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from detector.forms import Form
from detector.trajectory import Look

if TYPE_CHECKING:
    from torch import Tensor

Finish = Literal["stop", "length", "judged", "traced", "cancelled", "expired", "failed", "stuck"]
"""Why a request ended: an end token, max_tokens, the observer, a trace's end, `cancel`, its
deadline, numbers of its own that are NaN or infinite, or a grammar that came to its limits."""

Message = Mapping[str, Any]
"""One message of a conversation: `role` and `content`, both texts. An assistant's may have
`tool_calls`, and a tool's has the `name` of what was called, as OpenAI writes them.
"""

ToolDefinition = Mapping[str, Any]
"""A tool as OpenAI describes it: `type` and `function`."""


class Sampling(BaseModel):
    """How response tokens are drawn. Temperature 0 is greedy; top_k 0 is no limit.

    `repetition_penalty` weighs tokens of prompt and response, the other two penalties those
    of the response. No end token is drawn before `min_tokens`; with `ignore_eos` none ends
    the response. A grammar goes before both: what it has nothing to add to ends there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    repetition_penalty: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    min_tokens: int = Field(default=0, ge=0)
    ignore_eos: bool = False


class Matcher(Protocol):
    """How far one response has come in its grammar. Its calls raise GrammarError once the
    grammar's limits are reached, and then always.
    """

    def push(self, token: int) -> None:
        """The response's next token, one of those allowed."""

    def allowed(self) -> bytes:
        """Which tokens may come next, end tokens aside: a bit a token, the lowest bit first.
        Those beyond the last byte may not.
        """

    @property
    def may_end(self) -> bool:
        """Whether the response is whole as it is; where nothing is allowed besides, it ends."""


class Grammar(Protocol):
    """What a response is held to, as `Codec.compile` makes it. Nothing about it changes."""

    def matcher(self) -> Matcher:
        """At the start of a response."""


@dataclass(frozen=True)
class RenderedQuestion:
    """What is judged of a conversation, as a prompt of its own: its tokens, and the positions
    start..stop-1 of the question's own among them.
    """

    tokens: tuple[int, ...]
    span: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Ask:
    """A prompt to generate from, or a prompt and response to trace (teacher-forced).

    Each is one request of its own, however alike two are. `question`, where given, is judged
    at the prompt looks in place of `prompt`, at no cost where its tokens are the prompt's. With
    `response` given nothing is generated, and `max_tokens` and `sampling` have no part.

    `first`, where given, asks for another response to the same prompt and is submitted before
    this one or with it: the prompt looks are taken there alone, and if it ends without a
    token, so does this one. `n_logprobs` asks for the log-probabilities of each token and of
    that many likely ones. `timeout_seconds` runs from `submit`. One that is `refusable` may be
    ended by the observer at the prompt looks, and is shown to it there without waiting for a slot.
    Of the tokens that `grammar` does not allow none is drawn. What is `uncounted` takes no place of
    others' in the queue, and is queued itself only where they would be. One that is `averaged` asks
    for the mean over its tokens of what the model said of each; not every backend has it.
    """

    prompt: tuple[int, ...]
    max_tokens: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    question: RenderedQuestion | None = None
    response: tuple[int, ...] | None = None
    first: Ask | None = None
    n_logprobs: int | None = None
    timeout_seconds: float | None = None
    refusable: bool = False
    grammar: Grammar | None = None
    uncounted: bool = False
    averaged: bool = False

    @property
    def n_positions(self) -> int:
        """The most positions that it can come to occupy in one sequence."""
        if self.response is not None:
            return len(self.prompt) + len(self.response)
        return len(self.prompt) + self.max_tokens


@dataclass(frozen=True)
class TokenLogprobs:
    """What the model said of one drawn token: natural logarithms, before temperature,
    penalties and whatever else changes the draw.

    `top` holds the most likely tokens with theirs, most likely first; the drawn token need
    not be among them.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Timings:
    """What a request's time went by with, in seconds of the backend's clock: waiting; from there
    to its first token, or its end without one; and from the first token to the end, None where
    there are not both.
    """

    queue: float
    prefill: float
    decode: float | None = None


@dataclass(frozen=True)
class Step:
    """What one step did for one request: a token, an end, or both.

    `logprobs` are the token's, if they were asked for. The first token and the end come with
    `timings`, unless it never ran. `averaged` is the mean of the distributions that the tokens were
    drawn from, (vocabulary,), before temperature and all else that changes the draw; at the end of
    a response that came to one, if it was asked for.
    """

    ask: Ask
    token: int | None = None
    finish: Finish | None = None
    logprobs: TokenLogprobs | None = None
    timings: Timings | None = None
    averaged: Tensor | None = None


@dataclass(frozen=True)
class Capacity:
    """What a backend can take: sizes, and what is in use now.

    Tokens are the most positions that waiting requests can come to occupy.
    """

    n_slots: int
    max_length: int
    max_queue: int
    max_queue_tokens: int
    n_running: int
    n_waiting: int
    n_waiting_tokens: int

    @property
    def has_room(self) -> bool:
        """Whether the smallest request could be queued."""
        return self.admits(1, 1)

    def admits(self, n: int, n_tokens: int) -> bool:
        """Whether n more requests, of so many tokens in all, can be queued. Where nobody
        waits their tokens do not matter, so that none waits for ever.
        """
        if self.n_waiting + n > self.max_queue:
            return False
        return not self.n_waiting or self.n_waiting_tokens + n_tokens <= self.max_queue_tokens


class Observer(Protocol):
    """Shown requests and their trajectories (n, L + 1, d), on the model's device, at a look;
    True ends the request.
    """

    def __call__(
        self, look: Look, asks: Sequence[Ask], trajectories: Tensor, /
    ) -> Sequence[bool]: ...


class Backend(Protocol):
    """Runs a model for many requests at once and shows their trajectories to an observer.

    `submit`, `cancel`, `busy` and `capacity` may be called from any thread, the rest on the
    one thread that owns the model.
    """

    def submit(self, *asks: Ask) -> None:
        """Queue requests, all or none.

        Raises InvalidRequestError when one asks for what the model does not have,
        PromptTooLongError when one can never fit, CapacityError when the queue has no room
        for all of them now.
        """

    def cancel(self, ask: Ask) -> None:
        """End a request at the next step; does nothing once it has ended."""

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""

    def capacity(self) -> Capacity: ...

    def step(self) -> list[Step]:
        """Do a little of the work, and say what happened to whom."""

    def abandon(self) -> None:
        """Forget every request, after a failed step."""

    def close(self) -> None:
        """Let go of the model, which another backend may then run."""


class Decoder(Protocol):
    """Turns one response's tokens into text as they come, never half a character."""

    def push(self, token: int) -> str:
        """The text that is complete now that `token` has come, possibly empty."""

    def flush(self) -> str:
        """What is held back, once no token will come; half a character is U+FFFD."""


class Codec(Protocol):
    """Text to the tokens of a backend's model and back, under one prompt template."""

    def compile(self, form: Form) -> Grammar:
        """What a response is held to, in the model's tokens; may take a second. Raises GrammarError
        for a form that cannot be kept to, or only at a cost without bounds, saying why.
        """

    def encode_question(self, turns: Sequence[str]) -> RenderedQuestion:
        """The user's turns as they are judged, oldest first: the last one is the question."""

    def encode_conversation(
        self,
        messages: Sequence[Message],
        most: int | None = None,
        tools: Sequence[ToolDefinition] = (),
    ) -> tuple[int, ...]:
        """Messages, ready for the response, and `tools` that it may call; where they are over
        `most` tokens, perhaps only the first of these. Raises InvalidRequestError when the model's
        chat template refuses them.
        """

    def encode_prompt(self, prompt: str, most: int | None = None) -> tuple[int, ...]:
        """A prompt as it is, under no template, with what the tokenizer itself begins a text
        with; where it is over `most` tokens, perhaps only the first of these.
        """

    def encode_response(self, response: str, most: int | None = None) -> tuple[int, ...]:
        """Where it is over `most` tokens, perhaps only the first of these."""

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, which need not be whole characters."""

    @property
    def longest_token(self) -> int:
        """The most bytes that one token stands for."""

    def stream(self) -> Decoder: ...
