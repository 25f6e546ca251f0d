"""The schedule: who waits, who runs in which slot, and what the next step is.

A step prefills one batch of prompts (or one chunk of a long prompt), or it decodes one token
for every running request. Prompts go first, so that first tokens go out soon, but no more than
`prefill_tokens` positions of them between two decode steps, so that they keep nobody waiting.
Running requests occupy slots 0..n-1; a finished one is back-filled by the last.

This file knows nothing of torch or of the model.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from detector.backend import Ask, Capacity, Finish
from detector.engine.prefill import Row, rows_of
from detector.engine.run import Run
from detector.errors import CapacityError, InvalidRequestError, PromptTooLongError
from detector.trajectory import Look


@dataclass(frozen=True)
class Prefill:
    """Next: these whole sequences at once."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Chunk:
    """Next: positions start..stop-1 of the prompt that is staged, aside from the slots."""

    row: Row
    start: int
    stop: int


@dataclass(frozen=True)
class Decode:
    """Next: one token for each of these, which occupy slots 0..n-1."""

    runs: tuple[Run, ...]


class Freed(NamedTuple):
    """A slot that an ended request has left, and who moves into it from slot `source`."""

    slot: int
    source: int
    moved: Run | None


class Schedule:
    """Waiting, staged and running requests of one engine.

    `n_slots`, `prefill_tokens` and `alone` are the runner's, `n_tokens` is the size of the
    model's vocabulary. `clock` tells the seconds that deadlines are measured in.
    """

    def __init__(
        self,
        looks: frozenset[Look],
        *,
        n_slots: int,
        max_length: int,
        max_queue: int,
        prefill_tokens: int,
        alone: bool,
        n_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        self._looks = looks
        self._n_slots = n_slots
        self._max_length = max_length
        self._max_queue = max_queue
        self._prefill_tokens = prefill_tokens
        self._alone = alone
        self._n_tokens = n_tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[Ask, Run] = {}
        self._waiting: deque[Run] = deque()
        self._running: list[Run] = []
        self._staged: Run | None = None
        self._staged_rows: list[Row] = []
        # Positions prefilled since the last decode step.
        self._n_prefilled = 0

    # Any thread.

    def capacity(self) -> Capacity:
        with self._lock:
            return Capacity(
                n_slots=self._n_slots,
                max_length=self._max_length,
                max_queue=self._max_queue,
                n_running=len(self._running) + (self._staged is not None),
                n_waiting=len(self._waiting),
            )

    @property
    def busy(self) -> bool:
        with self._lock:
            return bool(self._runs)

    def add(self, asks: Sequence[Ask]) -> None:
        """Queue requests, all or none. Raises as `Backend.submit` does."""
        for ask in asks:
            self._require_valid(ask)
        now = self._clock()
        with self._lock:
            n_waiting = len(self._waiting)
            if n_waiting + len(asks) > self._max_queue:
                raise CapacityError(
                    f"the queue is full ({n_waiting} of {self._max_queue} places are taken, "
                    f"{len(asks)} more asked for): try again shortly"
                )
            runs: dict[Ask, Run] = {}
            for ask in asks:
                run = runs[ask] = Run(ask)
                if ask.first is not None:
                    run.first = runs.get(ask.first) or self._runs.get(ask.first)
                    if run.first is None:
                        raise InvalidRequestError(
                            "the first request for the same prompt is not under way: submit it "
                            "before this one or with it",
                            param="first",
                        )
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

    def _require_valid(self, ask: Ask) -> None:
        if ask.response is None and ask.max_tokens < 1:
            raise InvalidRequestError(
                f"max_tokens is {ask.max_tokens}: ask for at least 1", param="max_tokens"
            )
        question = ask.question
        texts = {"prompt": ask.prompt, "question": None if question is None else question.tokens}
        for name, ids in texts.items():
            if ids is not None and not ids:
                raise InvalidRequestError(f"the {name} has no tokens: send some", param="messages")
        for name, ids in {**texts, "response": ask.response}.items():
            if ids and not 0 <= min(ids) <= max(ids) < self._n_tokens:
                raise InvalidRequestError(
                    f"the {name} has a token that the model's {self._n_tokens} do not include: "
                    "serve the model with the tokenizer it was trained with",
                    param="messages",
                )
        n_question = 0
        if question is not None:
            n_question = len(question.tokens)
            start, stop = question.span
            if not 0 <= start < stop <= n_question:
                raise InvalidRequestError(
                    f"the question's span {question.span} holds none of its {n_question} tokens "
                    "or others: give it as start, stop",
                    param="messages",
                )
        needed = max(ask.n_positions, n_question)
        if needed > self._max_length:
            raise PromptTooLongError(
                f"the prompt takes {len(ask.prompt)} tokens and the request "
                f"{needed} in all; a slot holds {self._max_length}: shorten the "
                "prompt or lower max_tokens",
                param="messages",
            )

    # The engine's own thread.

    def slot(self, run: Run) -> int:
        return self._running.index(run)

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

    def next(self) -> Prefill | Chunk | Decode | None:
        """The next step's work; nothing when nobody is there."""
        with self._lock:
            if not self._running:
                self._n_prefilled = 0
            work = self._next_prefill()
            if work is not None:
                return work
            self._n_prefilled = 0
            return Decode(tuple(self._running)) if self._running else None

    def _next_prefill(self) -> Prefill | Chunk | None:
        if self._staged is None:
            rows = tuple(self._take_waiting())
            if rows:
                self._n_prefilled += len(rows) * max(len(row.ids) for row in rows)
                return Prefill(rows)
        if self._staged is None or self._n_prefilled:
            return None
        self._n_prefilled += self._prefill_tokens
        if not self._staged_rows[0].starts_response:
            # The question goes first: refused, its long prompt is never prefilled.
            return Prefill((self._staged_rows.pop(0),))
        start, n = self._staged.n_cached, len(self._staged.ask.prompt)
        return Chunk(self._staged_rows[0], start, min(start + self._prefill_tokens, n))

    def _take_waiting(self) -> list[Row]:
        """Take waiting requests, first come first served, while there is room for them.

        A trace needs no slot, so it may pass generations that wait for one, unless the model
        runs one request alone. A prompt over the budget goes to staging, by itself. A request
        that has a first one waits until that is judged.
        """
        taken: list[Row] = []
        left = self._prefill_tokens - self._n_prefilled
        n_free = self._n_slots - len(self._running)
        longest = 0
        for run in list(self._waiting):
            traced = run.ask.response is not None
            if not n_free and (not traced or self._alone):
                continue
            first = run.first
            if first in self._waiting or any(row.run is first for row in taken):
                continue
            rows = rows_of(run, self._looks)
            length = max(longest, *(len(row.ids) for row in rows))
            if length * (len(taken) + len(rows)) > left:
                if taken or self._n_prefilled:
                    break
                if not traced and len(run.ask.prompt) > left:
                    self._waiting.remove(run)
                    self._staged, self._staged_rows = run, rows
                    break
            self._waiting.remove(run)
            taken += rows
            longest = length
            n_free -= not traced
        return taken

    def start(self, runs: Sequence[Run]) -> int:
        """Prefilled prompts run from now on; returns the first of their slots."""
        with self._lock:
            if self._staged in runs:
                self._staged = None
            self._running.extend(runs)
            return len(self._running) - len(runs)

    def end(self, run: Run) -> Freed | None:
        """Forget a request, wherever it is; the slot it leaves, if it had one."""
        with self._lock:
            del self._runs[run.ask]
            if run is self._staged:
                self._staged = None
            elif run in self._waiting:
                self._waiting.remove(run)
            if run not in self._running:
                return None
            slot = self._running.index(run)
            last = self._running.pop()
            if last is run:
                return Freed(slot, slot, None)
            self._running[slot] = last
            return Freed(slot, len(self._running), last)

    def clear(self) -> None:
        """Forget every request."""
        with self._lock:
            self._runs.clear()
            self._waiting.clear()
            self._running.clear()
            self._staged = None
