"""The self-test of a guarded server: vLLM's engine beside plain transformers, before it answers.

It is the service's own (`detector.engine.self_test`), which drives a backend step by step on a
thread; here the backend is vLLM's client, whose loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from app.vllm_plugin.calls import Calls
from detector.backend import Ask, Backend, Observer, Step
from detector.trajectory import END, Look
from detector.vllm.tickets import KEY, TRACED, Ticket, read_trajectory

if TYPE_CHECKING:
    from detector.engine.model.checkpoint import Checkpoint

Generate = Callable[..., Any]
"""VLLM's own way to responses: a prompt, how to draw, and a name."""


async def self_test(
    checkpoint: Checkpoint, generate: Generate, calls: Calls, *, looks_at_end: bool
) -> None:
    """Raises SelfTestError where vLLM does not reproduce the model. Without `looks_at_end` the
    looks at the end are left out, which are not to be had where a step begins before the one
    before is over.
    """
    from detector.engine.self_test import self_test

    loop = asyncio.get_running_loop()

    @contextmanager
    def opened(_: Collection[Look], observer: Observer) -> Iterator[Backend]:
        yield cast("Backend", _Tested(loop, generate, calls, observer, looks_at_end=looks_at_end))

    await asyncio.to_thread(self_test, checkpoint, opened)


class _Tested:
    """As much of a backend as the self-test asks for."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        generate: Generate,
        calls: Calls,
        observer: Observer,
        *,
        looks_at_end: bool,
    ) -> None:
        self._loop = loop
        self._generate = generate
        self._calls = calls
        self._observer = observer
        self._looks_at_end = looks_at_end
        self._asks: list[Ask] = []

    def submit(self, *asks: Ask) -> None:
        self._asks += asks

    @property
    def busy(self) -> bool:
        return bool(self._asks)

    def step(self) -> list[Step]:
        """All of them at once, to their ends."""
        asks, self._asks = self._asks, []
        ran = asyncio.run_coroutine_threadsafe(self._run_all(asks), self._loop).result()
        steps = []
        for ask, (tokens, trajectories) in zip(asks, ran, strict=True):
            for look, said in trajectories.items():
                self._observer(look, [ask], read_trajectory(said)[None])
            steps += [Step(ask, token) for token in tokens]
            steps.append(Step(ask, finish="length" if ask.response is None else "traced"))
        return steps

    async def _run_all(self, asks: list[Ask]) -> list[tuple[list[int], dict[Look, Any]]]:
        return list(await asyncio.gather(*map(self._run, asks)))

    async def _run(self, ask: Ask) -> tuple[list[int], dict[Look, Any]]:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        response, name = ask.response or (), self._calls.name()
        ticket = Ticket(
            name,
            n=1,
            is_question=bool(response),
            is_judged=True,
            question=None if ask.question is None else ask.question.span,
            traced=True,
            n_response=len(response),
        )
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1 if response else ask.max_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_reading_prefix_cache=True,
            extra_args={KEY: ticket.written()},
        )
        tokens: list[int] = []
        with self._calls.traced(name) as traced:
            prompt = tokens_input([*ask.prompt, *response])
            async for output in self._generate(prompt, params, f"self-test-{name}"):
                tokens = list(output.outputs[0].token_ids)
            if not response and self._looks_at_end:
                await self._calls.trace_end(name)
            looks = TRACED if self._looks_at_end or response else TRACED - {END}
            return ([] if response else tokens), await traced.all_of(looks)
