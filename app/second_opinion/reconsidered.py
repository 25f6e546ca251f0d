"""The steps of a client's requests where a flag at the prompt is followed by a second opinion.

What is flagged is shown nothing of until its opinion is there. Where the flag has ended it, what is
freed is asked anew: meanwhile it holds no slot, which the opinion may need. Where it has not, it
goes on being generated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from app.asking.asked import Asked
from app.loading import Loaded
from app.second_opinion.giving import Flagged
from app.second_opinion.opinions import Opinions
from app.steps import Steps
from detector.backend import Ask, Finish, Step
from detector.errors import DeadlineError
from detector.opinion import Opinion


def submit(loaded: Loaded, asked: Asked, opinions: Opinions) -> Steps | Reconsidered:
    """Have it generated and judged, once more by a second opinion where one is due. Raises as
    `Loaded.submit` does.
    """
    steps = loaded.submit(asked)
    return Reconsidered(loaded, asked, steps, opinions) if opinions.are_due(asked) else steps


class _Given(NamedTuple):
    first: Ask
    opinion: Opinion


class Reconsidered:
    """See `Steps`: to be iterated to the end, or closed. Steps are of what was asked, also where
    that was asked anew.
    """

    def __init__(self, loaded: Loaded, asked: Asked, steps: Steps, opinions: Opinions) -> None:
        self._loaded = loaded
        self._asked = asked
        self._opinions = opinions
        self._judgements = dict(zip(asked.asks, asked.judgements, strict=True))
        self._began = time.monotonic()
        self._queue: asyncio.Queue[Step | _Given | Exception] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sources = [steps]
        # Those that have not ended, with what is asked in their place.
        self._open = {ask: ask for ask in asked.asks}
        self._original = {ask: ask for ask in asked.asks}
        # By question, which its first ask stands for: the steps that wait for its opinion.
        self._held: dict[Ask, list[Step]] = {}
        self._settled: set[Ask] = set()

    async def __aiter__(self) -> AsyncIterator[Step]:
        try:
            self._begin(self._pump(self._sources[0]))
            while self._open:
                item = await self._queue.get()
                if isinstance(item, Exception):
                    raise item
                shown = self._decided(item) if isinstance(item, _Given) else self._passed(item)
                for step in shown:
                    if step.ask not in self._open:
                        continue
                    if step.finish is not None:
                        del self._open[step.ask]
                    yield step
        finally:
            self.close()

    def leave(self, ask: Ask) -> None:
        """Cancel one of the requests, if it has not ended; its steps come no more."""
        asked = self._open.pop(ask, None)
        if asked is not None:
            for steps in self._sources:
                steps.leave(asked)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for steps in self._sources:
            steps.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pump(self, steps: Steps) -> None:
        try:
            async for step in steps:
                self._queue.put_nowait(step)
        except Exception as error:
            self._queue.put_nowait(error)

    def _passed(self, step: Step) -> Iterator[Step]:
        """What may be shown of a step: of a flagged question nothing yet."""
        ask = self._original[step.ask]
        if self._open.get(ask) is not step.ask:
            return  # it has been left, or asked anew
        step, first = replace(step, ask=ask), ask.first or ask
        if first in self._held:
            self._held[first].append(step)
        elif first not in self._settled and self._is_flagged(first):
            self._held[first] = [step]
            self._begin(self._ask_about(first))
        else:
            self._settled.add(first)
            yield step

    def _is_flagged(self, first: Ask) -> bool:
        """Whether at its prompt, which has been judged before any step."""
        verdict = self._judgements[first].verdict
        return verdict is not None and "prompt" in verdict.flagged_stages

    async def _ask_about(self, first: Ask) -> None:
        verdict = self._judgements[first].verdict
        assert verdict is not None
        messages = self._asked.conversations[self._asked.asks.index(first)]
        left = self._left_of(first)
        flagged = Flagged(first, verdict, messages)
        opinion = await self._opinions.about(self._loaded, flagged, left)
        self._queue.put_nowait(_Given(first, opinion))

    def _left_of(self, ask: Ask) -> float:
        """Of its time."""
        if ask.timeout_seconds is None:
            return float("inf")
        return ask.timeout_seconds - (time.monotonic() - self._began)

    def _decided(self, given: _Given) -> Iterator[Step]:
        """What may be shown now that there is an opinion."""
        first, opinion = given
        held = self._held.pop(first)
        self._settled.add(first)
        asks = [ask for ask in self._open if (ask.first or ask) is first]
        for ask in asks:
            self._judgements[ask].opinion = opinion
        if not asks:
            return
        if opinion.frees and opinion.response is not None:
            for ask in asks:
                yield from self._answered(ask, opinion.response, opinion.finish)
        elif opinion.frees and any(step.finish == "judged" for step in held):
            self._ask_anew(asks)
        else:
            yield from held

    def _answered(self, ask: Ask, response: tuple[int, ...], finish: Finish) -> Iterator[Step]:
        """The answer that the opinion came to, in place of one that is generated."""
        for steps in self._sources:
            steps.leave(self._open[ask])
        for token in response[:-1]:
            yield Step(ask, token)
        yield Step(ask, response[-1] if response else None, finish)

    def _ask_anew(self, asks: list[Ask]) -> None:
        """Raises as `Loaded.submit` does, and DeadlineError where no time is left for it."""
        first = asks[0]
        left = self._left_of(first)
        if left <= 0:
            raise DeadlineError(
                f"the request did not get to its first token in its {first.timeout_seconds:g} "
                "seconds: allow more time, or try again when the service has less to do",
                param="trajguard.timeout_seconds",
            )
        seconds = None if first.timeout_seconds is None else left
        anew = replace(first, first=None, timeout_seconds=seconds, refusable=False)
        for ask in asks:
            mine = anew if ask is first else replace(ask, timeout_seconds=seconds, first=anew)
            self._open[ask], self._original[mine] = mine, ask
            # Judged again, at the prompt too.
            self._judgements[ask].looks.clear()
        steps = self._loaded.submit(
            Asked(
                tuple(self._open[ask] for ask in asks),
                tuple(self._judgements[ask] for ask in asks),
                self._asked.modes,
                self._asked.alpha,
            )
        )
        self._sources.append(steps)
        self._begin(self._pump(steps))
