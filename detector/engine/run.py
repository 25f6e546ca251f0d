"""One request under way: what was asked, and how far it has come. The engine's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detector.backend import Ask, Finish, Step, Timings, TokenLogprobs

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessorList

    from detector.engine.grammar import Hold


_OF_LOOKS: tuple[Finish, ...] = ("judged", "failed")
"""How a request may end where it is shown to the observer."""


@dataclass(frozen=True)
class Kept:
    """A prompt prefilled ahead: a runner's keys and values, the logits after its last token
    (vocabulary,) and the state there (L + 1, d).
    """

    keys: Sequence[tuple[torch.Tensor, torch.Tensor]]
    logits: torch.Tensor
    state: torch.Tensor


@dataclass(frozen=True)
class PromptEnd:
    """Where a prompt ends that other responses share: the logits after its last token
    (vocabulary,) and the state there (L + 1, d).
    """

    logits: torch.Tensor
    state: torch.Tensor


@dataclass(eq=False)
class Run:
    """What becomes of an ask.

    `first` is the run of `ask.first`. `deadline` is in seconds of the engine's clock,
    `n_cached` the number of positions whose keys are in its slot. One that waits may have been
    judged at its prompt already, and that prefill be `kept`. One that `shares` is the first of
    others on the same prompt, which begin where that ends: at its `prompt_end`, once that is
    prefilled. `total` sums up what the model said of its tokens, where its average is asked for.
    The draw's `processors`, `generator` and, where it has a grammar, `hold` are made at its first
    token. `borders` are the sums of its states (L + 1, d) over so many tokens, where a patch begins
    that is still to be looked at.

    It `arrived`, was prefilled `ahead`, `began` to be prefilled in its turn and was given its
    `first_token` when the clock said so.
    """

    ask: Ask
    clock: Callable[[], float] = time.monotonic
    arrived: float = 0.0
    ahead: float | None = None
    began: float | None = None
    first_token: float | None = None
    first: Run | None = None
    deadline: float = math.inf
    cancelled: bool = False
    n_cached: int = 0
    generated: list[int] = field(default_factory=list)
    finish: Finish | None = None
    is_judged: bool = False
    is_kept: bool = False
    kept: Kept | None = None
    shares: bool = False
    prompt_end: PromptEnd | None = None
    total: torch.Tensor | None = None
    processors: LogitsProcessorList | None = None
    generator: torch.Generator | None = None
    hold: Hold | None = None
    borders: dict[int, torch.Tensor] = field(default_factory=dict)

    def begin(self) -> None:
        """Its prefill begins, or its next part: ahead of its turn if it has just been taken so."""
        if self.is_judged and self.ahead is None:
            self.ahead = self.clock()
        elif self.began is None:
            self.began = self.clock()

    def step(
        self,
        token: int | None = None,
        finish: Finish | None = None,
        logprobs: TokenLogprobs | None = None,
    ) -> Step:
        """What a step did for it."""
        timings = None
        if finish is not None or len(self.generated) == 1:
            timings = self._timings(finish)
        averaged = None
        if finish in ("stop", "length") and self.total is not None:
            averaged = (self.total / len(self.generated)).cpu()
        return Step(self.ask, token, finish, logprobs, timings, averaged)

    def _timings(self, finish: Finish | None) -> Timings | None:
        # Judged ahead, it has run only if that ended it: else it went on waiting.
        began = self.ahead if self.began is None and finish in _OF_LOOKS else self.began
        if began is None:
            return None
        now = self.clock()
        if self.generated and self.first_token is None:
            self.first_token = now
        if self.first_token is None:
            return Timings(began - self.arrived, now - began)
        decode = None if finish is None else now - self.first_token
        return Timings(began - self.arrived, self.first_token - began, decode)


def advance(
    runs: Sequence[Run],
    tokens: Sequence[int],
    eos_ids: Collection[int],
    ended: Mapping[Run, Finish],
) -> dict[Run, Finish]:
    """Give each run its next token, unless it has `ended`; how those end that do."""
    finishes: dict[Run, Finish] = {}
    for run, token in zip(runs, tokens, strict=True):
        if run in ended:
            finishes[run] = ended[run]
            continue
        run.generated.append(token)
        ends = run.ask.grammar is not None or not run.ask.sampling.ignore_eos
        if token in eos_ids and ends:
            finishes[run] = "stop"
        elif len(run.generated) >= run.ask.max_tokens:
            finishes[run] = "length"
    return finishes
