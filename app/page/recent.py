"""The last questions judged, kept in memory for the page. Never their texts."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from app.judging import Judged

N_POINTS = 1000
"""Questions of which time, p-value and flag are kept, for the curves."""

N_EVENTS = 200
"""Questions of which all is kept that was judged, for whoever asked to see why."""


@dataclass(frozen=True)
class Told:
    """One question judged, and when, in seconds of Unix time. `number` counts all of them."""

    number: int
    at: float
    event: Judged


class Recent:
    """What was judged last. Everything happens on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._told: deque[Told] = deque(maxlen=N_POINTS)
        self._changed = asyncio.Event()
        self.n = 0

    def add(self, event: Judged) -> None:
        """Keep an event without what was asked, and of one that is no longer recent no more than
        the curves need.
        """
        self.n += 1
        self._told.append(Told(self.n, self._clock(), replace(event, question="")))
        if len(self._told) > N_EVENTS:
            old = self._told[-N_EVENTS - 1]
            verdict = old.event.verdict
            if verdict is not None and verdict.looks:
                bare = replace(old.event, verdict=replace(verdict, looks=()), places={})
                self._told[-N_EVENTS - 1] = replace(old, event=bare)
        self._changed.set()
        self._changed = asyncio.Event()

    def after(self, number: int) -> Sequence[Told]:
        """Those that came after the one of a number, as far as they are kept, oldest first."""
        n = min(self.n - number, len(self._told))
        return list(islice(self._told, len(self._told) - n, None))

    def of(self, request_id: str) -> Sequence[Told]:
        """Those of one request of which all is kept, the last one first."""
        latest = list(islice(reversed(self._told), N_EVENTS))
        return [told for told in latest if told.event.request_id == request_id]

    async def changed(self, number: int, timeout_seconds: float) -> bool:
        """Whether any has come after the one of a number, waiting for one if need be."""
        if self.n == number:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._changed.wait()
            except TimeoutError:
                return False
        return self.n != number
