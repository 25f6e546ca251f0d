"""Who is there: the waiting and the running requests of one engine.

Says what may be queued, what has to end now whatever else there is to do, and how full it is.
This file knows nothing of torch or of the model.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from detector.backend import Ask, Capacity, Finish
from detector.engine.admission import require_valid
from detector.engine.run import Run
from detector.errors import CapacityError, InvalidRequestError


class Roster:
    """`n_tokens` is the size of the model's vocabulary. `clock` tells the seconds that deadlines
    are measured in.
    """

    def __init__(
        self,
        *,
        n_slots: int,
        max_length: int,
        max_queue: int,
        max_queue_tokens: int,
        n_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        self._n_slots = n_slots
        self._max_length = max_length
        self._max_queue = max_queue
        self._max_queue_tokens = max_queue_tokens
        self._n_tokens = n_tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[Ask, Run] = {}
        self._waiting: deque[Run] = deque()
        self._running: list[Run] = []

    # Any thread.

    def capacity(self) -> Capacity:
        with self._lock:
            return self._capacity()

    def _capacity(self) -> Capacity:
        waiting, n_running = self._counted()
        waiting = [run for run in waiting if not run.ask.uncounted]
        return Capacity(
            n_slots=self._n_slots,
            max_length=self._max_length,
            max_queue=self._max_queue,
            max_queue_tokens=self._max_queue_tokens,
            n_running=n_running,
            n_waiting=len(waiting),
            n_waiting_tokens=sum(run.ask.n_positions for run in waiting),
        )

    def _counted(self) -> tuple[Sequence[Run], int]:
        """Who waits, and how many run."""
        return self._waiting, len(self._running)

    @property
    def busy(self) -> bool:
        with self._lock:
            return bool(self._runs)

    def add(self, asks: Sequence[Ask]) -> None:
        """Queue requests, all or none. Raises as `Backend.submit` does."""
        for ask in asks:
            require_valid(ask, max_length=self._max_length, n_tokens=self._n_tokens)
        now = self._clock()
        with self._lock:
            capacity, n_asked = self._capacity(), sum(ask.n_positions for ask in asks)
            if not capacity.admits(len(asks), n_asked):
                raise CapacityError(
                    f"the queue is full ({capacity.n_waiting} of {self._max_queue} places are "
                    f"taken, {len(asks)} more asked for; {capacity.n_waiting_tokens} of "
                    f"{self._max_queue_tokens} tokens, {n_asked} more): try again shortly"
                )
            runs: dict[Ask, Run] = {}
            for ask in asks:
                run = runs[ask] = Run(ask, self._clock, now)
                if ask.first is not None:
                    run.first = runs.get(ask.first) or self._runs.get(ask.first)
                    if run.first is None:
                        raise InvalidRequestError(
                            "the first request for the same prompt is not under way: submit it "
                            "before this one or with it",
                            param="first",
                        )
                    run.first.shares |= ask.prompt == ask.first.prompt
                if ask.timeout_seconds is not None:
                    run.deadline = now + ask.timeout_seconds
            self._runs |= runs
            self._waiting.extend(runs.values())

    def cancel(self, ask: Ask) -> None:
        """End a request at the next step; does nothing once it has ended."""
        with self._lock:
            run = self._runs.get(ask)
            if run is not None:
                run.cancelled = True

    # The engine's own thread.

    def overdue(self) -> dict[Run, Finish]:
        """What was cancelled, is past its deadline, or whose first request ended without a
        token: to be ended now.
        """
        now = self._clock()
        overdue: dict[Run, Finish] = {}
        with self._lock:
            # In the order in which they came, so that a first request is seen before the others.
            for run in self._runs.values():
                first = run.first
                if run.cancelled:
                    overdue[run] = "cancelled"
                elif run.deadline <= now:
                    overdue[run] = "expired"
                elif first is not None and not first.generated:
                    finish = first.finish or overdue.get(first)
                    if finish is not None:
                        overdue[run] = finish
        return overdue

    def clear(self) -> None:
        """Forget every request."""
        with self._lock:
            self._runs.clear()
            self._waiting.clear()
            self._running.clear()
