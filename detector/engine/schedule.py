"""The schedule: who waits, who runs in which slot, and what the next step is.

A step prefills one batch of prompts (or one chunk of a long prompt, question or trace), or it
decodes one token for every running request. Prompts go first, so that first tokens go out soon,
no more than `prefill_tokens` positions between two decode steps, so that nobody is kept waiting.
Further responses to a prompt are not prefilled, as long as one of them runs: they begin with a copy
of its keys.
Running requests occupy slots 0..n-1; a finished one is back-filled by the last.

While no slot is free, those who wait and may be refused are judged ahead, in their order: what is
judged of them is prefilled without a slot, so that a refusal waits for no slot. Of the budget
that takes a part only, for the sake of those who run; and where it is the prompt itself, its
keys are kept, as far as there is room for them, so that nothing is prefilled twice.

This file knows nothing of torch or of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from detector.engine.prefill import Row, row_ahead, rows_of
from detector.engine.roster import Roster
from detector.engine.run import Run
from detector.engine.work import Chunk, Decode, Freed, Prefill, Resume, Share, Sharing, begin
from detector.trajectory import Look

_AHEAD_SHARE = 2
"""What part of the budget judging ahead has while others run."""
_KEPT_SLOTS = 2
"""Prompts that wait keep no more positions than so many slots hold."""


class Schedule(Roster):
    """Waiting, staged and running requests of one engine.

    `n_slots`, `prefill_tokens` and `alone` are the runner's; see `Roster` for the rest.
    """

    def __init__(
        self,
        looks: frozenset[Look],
        *,
        n_slots: int,
        max_length: int,
        max_queue: int,
        max_queue_tokens: int,
        prefill_tokens: int,
        alone: bool,
        n_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(
            n_slots=n_slots,
            max_length=max_length,
            max_queue=max_queue,
            max_queue_tokens=max_queue_tokens,
            n_tokens=n_tokens,
            clock=clock,
        )
        self._looks = looks
        self._prefill_tokens = prefill_tokens
        self._alone = alone
        self._staged: Run | None = None
        self._staged_rows: list[Row] = []
        # Positions prefilled since the last decode step.
        self._n_prefilled = 0
        # Positions that may be prefilled ahead between two decode steps, and that may be kept.
        self._ahead_tokens = prefill_tokens // _AHEAD_SHARE
        self._kept_tokens = _KEPT_SLOTS * max_length

    def _counted(self) -> tuple[Sequence[Run], int]:
        waiting, n_running = list(self._waiting), len(self._running)
        if self._staged is not None:
            # A trace has no slot to come.
            if self._staged.ask.response is None:
                n_running += 1
            else:
                waiting = [self._staged, *waiting]
        return waiting, n_running

    def slot(self, run: Run) -> int:
        return self._running.index(run)

    def next(self) -> Prefill | Chunk | Resume | Share | Decode | None:
        """The next step's work; nothing when nobody is there."""
        with self._lock:
            if not self._running:
                self._n_prefilled = 0
            if (work := self._next_prefill()) is not None:
                begin(work)
                return work
            self._n_prefilled = 0
            return Decode(tuple(self._running)) if self._running else None

    def _next_prefill(self) -> Prefill | Chunk | Resume | Share | None:
        if self._staged is None:
            if kept := self._take_kept():
                return Resume(tuple(kept))
            if sharing := self._take_sharing():
                return Share(tuple(sharing))
            rows = tuple(self._take_waiting())
            if rows:
                self._n_prefilled += len(rows) * max(len(row.ids) for row in rows)
                return Prefill(rows)
        if self._staged is None or self._n_prefilled:
            return None
        self._n_prefilled += self._prefill_tokens
        # The question goes first: refused, its long prompt is never prefilled.
        row, start = self._staged_rows[0], self._staged.n_cached
        stop = min(start + self._prefill_tokens, len(row.ids))
        if stop == len(row.ids):
            del self._staged_rows[0]
        return Chunk(row, start, stop, is_last=not self._staged_rows)

    def _take_kept(self) -> list[Run]:
        """Take those whose turn it is and whose prompts were kept, as far as there are slots."""
        taken: list[Run] = []
        n_free = self._n_slots - len(self._running)
        for run in self._waiting:
            if run.ask.response is not None or run.first in self._waiting:
                continue
            if not run.is_kept or len(taken) == n_free:
                break
            taken.append(run)
        for run in taken:
            self._waiting.remove(run)
        return taken

    def _take_sharing(self) -> list[Sharing]:
        """Take those whose turn it is and whose prompt is in a slot already, as far as there are
        slots.
        """
        taken: list[Sharing] = []
        n_free = self._n_slots - len(self._running)
        for run in self._waiting:
            if run.ask.response is not None or run.first in self._waiting:
                continue
            sharing = self._sharing(run)
            if sharing is None or len(taken) == n_free:
                break
            taken.append(sharing)
        for each in taken:
            self._waiting.remove(each.run)
        return taken

    def _sharing(self, run: Run) -> Sharing | None:
        """How it would begin, where somebody still runs on the same prompt."""
        first, prompt = run.first, run.ask.prompt
        if first is None or first.prompt_end is None or prompt != first.ask.prompt:
            return None
        for each in self._running:
            if first in (each, each.first) and each.ask.prompt == prompt:
                return Sharing(run, each, first.prompt_end)
        return None

    def _take_waiting(self) -> list[Row]:
        """Take waiting requests, first come first served, while there is room for them.

        A trace needs no slot, so it may pass generations that wait for one, unless the model
        runs one request alone. One with a row over the budget goes to staging, by itself. A request
        that has a first one waits until that is judged. One that is judged ahead goes on waiting.
        """
        taken: list[Row] = []
        left = self._prefill_tokens - self._n_prefilled
        n_free = self._n_slots - len(self._running)
        longest = 0
        for run in list(self._waiting):
            traced = run.ask.response is not None
            if not n_free and (not traced or self._alone):
                if (row := self._row_ahead(run, longest, len(taken))) is not None:
                    taken.append(row)
                    longest = max(longest, len(row.ids))
                continue
            first = run.first
            if first in self._waiting or any(row.run is first for row in taken):
                continue
            if run.is_kept or self._sharing(run):  # its turn is the next step
                break
            rows = rows_of(run, self._looks)
            length = max(longest, *(len(row.ids) for row in rows))
            if length * (len(taken) + len(rows)) > left:
                if taken or self._n_prefilled:
                    break
                if max(len(row.ids) for row in rows) > left:
                    self._waiting.remove(run)
                    self._staged, self._staged_rows = run, rows
                    break
            self._waiting.remove(run)
            taken += rows
            longest = length
            n_free -= not traced
        return taken

    def _row_ahead(self, run: Run, longest: int, n_taken: int) -> Row | None:
        """What to prefill ahead of a request that waits for a slot, if anything and if it fits
        beside `n_taken` rows that are `longest` positions long. One row always does by itself.
        """
        row = None if self._alone else row_ahead(run, self._looks)
        if row is None:
            return None
        n = len(row.ids)
        by_itself = not n_taken and not self._n_prefilled
        n_ahead = self._n_prefilled + max(longest, n) * (n_taken + 1)
        if n_ahead > (self._prefill_tokens if by_itself else self._ahead_tokens):
            return None
        run.is_judged = True
        if row.kept:
            n_kept = sum(len(each.ask.prompt) for each in self._waiting if each.is_kept)
            run.is_kept = n_kept + n <= self._kept_tokens
            row = replace(row, kept=run.is_kept)
        return row

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
        super().clear()
        with self._lock:
            self._staged = None
