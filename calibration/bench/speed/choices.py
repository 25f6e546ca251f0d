"""Several responses to one prompt: choices that share its prefill, and requests that do not."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from calibration.bench.speed.contenders import ANY_TOKEN
from detector.backend import Ask
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import load_checkpoint

_FIRST_ID, _LAST_ID = 5, 40_000


@dataclass(frozen=True)
class Shared:
    """Medians over rounds, in milliseconds: until the first token of all choices is there, and
    until all have ended; then the ratios round by round, sorted.
    """

    n: int
    n_prompt: int
    n_tokens: int
    first: dict[bool, float]
    whole: dict[bool, float]
    ratios: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"n {self.n}, prompt {self.n_prompt}, {self.n_tokens} tokens each: all first tokens "
            f"after {self.first[True]:.0f} ms shared, {self.first[False]:.0f} ms not; all ended "
            f"after {self.whole[True]:.0f} and {self.whole[False]:.0f} ms: "
            f"{statistics.median(self.ratios):.2f} times as fast "
            f"({self.ratios[0]:.2f} to {self.ratios[-1]:.2f})"
        )


def choices(
    model: str, dtype: str, *, n: int, n_prompt: int, lengths: Sequence[int], rounds: int
) -> Iterator[Shared]:
    """In one engine, both ways in turn, each round another prompt."""
    engine = Engine(load_checkpoint(model, dtype), n_slots=n, max_length=n_prompt + max(lengths))
    draw = random.Random(0)  # noqa: S311 (reproducible, not secret)
    for n_tokens in lengths:
        first: dict[bool, list[float]] = {True: [], False: []}
        whole: dict[bool, list[float]] = {True: [], False: []}
        _run(engine, _asks((7,) * n_prompt, n, n_tokens, shared=True))
        for number in range(rounds):
            prompt = tuple(draw.randrange(_FIRST_ID, _LAST_ID) for _ in range(n_prompt))
            for shared in (True, False) if number % 2 else (False, True):
                to_first, to_end = _run(engine, _asks(prompt, n, n_tokens, shared=shared))
                first[shared].append(to_first)
                whole[shared].append(to_end)
        pairs = zip(whole[False], whole[True], strict=True)
        yield Shared(
            n,
            n_prompt,
            n_tokens,
            {shared: statistics.median(times) for shared, times in first.items()},
            {shared: statistics.median(times) for shared, times in whole.items()},
            tuple(sorted(alone / together for alone, together in pairs)),
        )
    engine.close()


def _asks(prompt: tuple[int, ...], n: int, n_tokens: int, *, shared: bool) -> list[Ask]:
    sampling = ANY_TOKEN.model_copy(update={"temperature": 1.0})
    first = Ask(prompt, max_tokens=n_tokens, sampling=sampling, seed=0)
    return [
        first,
        *(replace(first, seed=seed, first=first if shared else None) for seed in range(1, n)),
    ]


def _run(engine: Engine, asks: Sequence[Ask]) -> tuple[float, float]:
    """Milliseconds until each has a token, and until all have ended."""
    began = time.perf_counter()
    engine.submit(*asks)
    waiting, to_first = set(asks), 0.0
    while engine.busy:
        waiting -= {step.ask for step in engine.step() if step.token is not None}
        if not waiting and not to_first:
            to_first = time.perf_counter() - began
    return 1000 * to_first, 1000 * (time.perf_counter() - began)
