"""How vLLM's two model runners lay out a step, and where each of them draws.

V1 is what runs on CPUs; V2 is what vLLM prefers wherever Triton is, so on CUDA. V1 gives the
logits of a step before it draws and takes generators of single rows. V2 makes them while it draws,
from seeds and positions, in kernels of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from detector.vllm.pooling import Part

BeforeDraw = Callable[[list[str], Tensor, dict[int, torch.Generator] | None], None]
"""Called with the names of the requests of a step, in the order of its logits, these (n,
vocabulary), to change them in place, and the generators of rows, of which there are none yet, or
None where the runner takes none.
"""


class ModelRunner(Protocol):
    """What is asked of either."""

    seeds_itself: bool
    """Whether it draws from a request's seed by itself, and so from no generator."""
    keeps_generators: bool
    """Whether the generators of rows are vLLM's own, and stay from step to step."""

    def parts(self) -> Iterator[Part]:
        """What the step that has just run had of each request."""

    def drawing(self, before: BeforeDraw | None) -> Any:
        """While this lasts the runner draws, after `before`."""


def model_runner(runner: Any, *, is_v2: bool) -> ModelRunner:
    """Of vLLM's own, which has loaded its model."""
    return _V2(runner) if is_v2 else _V1(runner)


class _V1:
    seeds_itself = False
    keeps_generators = False

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def parts(self) -> Iterator[Part]:
        batch = self._runner.input_batch
        ends = self._runner.query_start_loc.np
        for index, name in enumerate(batch.req_ids):
            row, n = int(ends[index]), int(ends[index + 1] - ends[index])
            start = int(batch.num_computed_tokens_cpu[index])
            yield Part(name, row, start, start + n)

    @contextmanager
    def drawing(self, before: BeforeDraw | None) -> Iterator[None]:
        state, batch = self._runner.execute_model_state, self._runner.input_batch
        try:
            if state is not None and before is not None:
                before(list(batch.req_ids), state.logits, batch.generators)
            yield
        finally:
            # Rows change places between steps, and those of a step that draw not have none.
            if not self.keeps_generators:
                batch.generators.clear()


class _V2:
    seeds_itself = True
    keeps_generators = True

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._sample = runner.sampler.sample
        self._before: Callable[[Tensor], None] | None = None
        runner.sampler.sample = self._draw

    def parts(self) -> Iterator[Part]:
        batch = self._runner.execute_model_state.input_batch
        ends = batch.query_start_loc_np
        for index, name in enumerate(batch.req_ids):
            row, n = int(ends[index]), int(ends[index + 1] - ends[index])
            start = int(batch.num_computed_tokens_np[index])
            yield Part(name, row, start, start + n)

    @contextmanager
    def drawing(self, before: BeforeDraw | None) -> Iterator[None]:
        state = self._runner.execute_model_state
        if state is not None and before is not None:
            names = list(state.input_batch.req_ids)
            self._before = lambda logits: before(names, logits, None)
        try:
            yield
        finally:
            self._before = None

    def _draw(self, logits: Tensor, *arguments: Any, **named: Any) -> Any:
        if self._before is not None:
            self._before(logits)
        return self._sample(logits, *arguments, **named)
