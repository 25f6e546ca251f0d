"""`Backend` by vLLM's engine, whose core runs in this process and on the thread that steps it.

vLLM is given sequences and gives a token a step for each. All that is decided of a request is
decided here, between two of its steps, by the same code as in the own engine: what is judged at
which look, which token ends a response and how, whose time is over. Who is ended by the observer
has his token dropped and is taken back from vLLM before its next step, so that the end comes no
token late and asks for no message to another process. The looks of a step are taken from what the
worker has pooled of it (`pooling`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from vllm.inputs.engine import tokens_input

from detector.backend import Ask, Capacity, Finish, Observer, Step, TokenLogprobs
from detector.engine.borders import Borders
from detector.engine.observing import observe
from detector.engine.run import Run, advance
from detector.trajectory import END, PROMPT_LOOKS, Look, in_order
from detector.vllm.drawing import Draws
from detector.vllm.params import params_of
from detector.vllm.seats import Flight, Seats

if TYPE_CHECKING:
    from vllm import LLMEngine

    from detector.vllm.worker import PoolingWorker


class VllmBackend:
    """Made by `open_backend`. `engine` and `worker` are vLLM's; `close` ends both."""

    def __init__(
        self,
        engine: LLMEngine,
        worker: PoolingWorker,
        *,
        eos_ids: Collection[int],
        looks: Collection[Look],
        observer: Observer | None,
        n_slots: int,
        n_besides: int,
        max_length: int,
        max_queue: int,
        max_queue_tokens: int,
        close: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.looks = frozenset(looks)
        self._borders = Borders(self.looks)
        self._observer = observer
        self._engine = engine
        self._worker = worker
        self._pool = worker.pool
        self._eos_ids = frozenset(eos_ids)
        self._draws = Draws(eos_ids)
        self._close = close
        self._seats = Seats(
            n_slots=n_slots,
            n_besides=n_besides,
            max_length=max_length,
            max_queue=max_queue,
            max_queue_tokens=max_queue_tokens,
            n_tokens=engine.model_config.get_vocab_size(),
            clock=clock,
        )
        # By the names that vLLM has for them inside, and outside.
        self._inside: dict[str, Flight] = {}
        self._outside: dict[str, Flight] = {}
        self._names: dict[Flight, str] = {}
        self._steps: list[Step] = []
        worker.before_draw = self._before_draw

    @contextmanager
    def seen_by(self, looks: Collection[Look], observer: Observer) -> Iterator[VllmBackend]:
        """The same, with other looks and another observer for a while."""
        before = self.looks, self._borders, self._observer
        self.looks, self._borders, self._observer = frozenset(looks), Borders(looks), observer
        try:
            yield self
        finally:
            self.looks, self._borders, self._observer = before

    # Any thread.

    def capacity(self) -> Capacity:
        return self._seats.capacity()

    @property
    def busy(self) -> bool:
        return self._seats.busy

    def submit(self, *asks: Ask) -> None:
        self._seats.add(asks)

    def cancel(self, ask: Ask) -> None:
        self._seats.cancel(ask)

    # The engine's own thread.

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Give vLLM what is next, have it make a step, and say what happened to whom."""
        self._steps = []
        for run, finish in self._seats.overdue().items():
            self._end(run, finish)
        for flight in self._seats.next(self.looks):
            self._give(flight)
        if self._inside:
            outputs = {output.request_id: output for output in self._engine.step()}
            drawn = {
                self._outside[name].run: output.outputs[0].token_ids[-1]
                for name, output in outputs.items()
                if output.outputs[0].token_ids
            }
            flights = [self._outside[name] for name in outputs if self._outside[name].run in drawn]
            self._sort(flights, drawn)
        return self._steps

    def abandon(self) -> None:
        self._engine.abort_request(list(self._inside), internal=True)
        self._worker.forget_step()
        # What the failed step was to write is in no block that is found again.
        self._engine.reset_prefix_cache()
        self._inside.clear()
        self._outside.clear()
        self._names.clear()
        self._pool.clear()
        self._seats.clear()

    def close(self) -> None:
        """Let go of vLLM's engine, its memory and its process group."""
        self._close()

    def _give(self, flight: Flight) -> None:
        row = flight.row
        flight.run.begin()
        params = params_of(row, seeded=self._worker.runner.seeds_itself)
        name = self._engine.add_request(flight.name, tokens_input(list(row.ids)), params)
        self._inside[name], self._outside[flight.name], self._names[flight] = flight, flight, name
        judged = row.starts_response and bool(self.looks - PROMPT_LOOKS)
        self._pool.watch(name, row, sums=judged)

    def _take_back(self, flight: Flight) -> None:
        """VLLM runs it no further, or has run all of it."""
        name = self._names.pop(flight)
        del self._inside[name], self._outside[flight.name]
        self._engine.abort_request([name], internal=True)
        self._pool.forget(name)

    def _before_draw(
        self,
        names: Sequence[str],
        logits: Tensor,
        generators: dict[int, torch.Generator] | None,
    ) -> None:
        """Called by the worker: those all of whose tokens have run draw the next one."""
        rows, runs = [], []
        for row, name in enumerate(names):
            flight = self._inside.get(name)
            if flight is None or not flight.row.starts_response:
                continue
            n_tokens = len(flight.row.ids) + len(flight.run.generated)
            if self._pool.reached(name) >= n_tokens:
                rows.append(row)
                runs.append(flight.run)
        self._draws.begin(rows, runs, logits, generators)

    def _sort(self, flights: Sequence[Flight], drawn: dict[Run, int]) -> None:
        """Look at what has run, and end, send on or emit."""
        ended = self._observe(flights)
        emitting = []
        for flight in flights:
            flight.began = True
            if flight.row.starts_response:
                emitting.append(flight.run)
            else:
                self._end_judged(flight, ended)
        self._emit(emitting, drawn, ended)

    def _observe(self, flights: Sequence[Flight]) -> dict[Run, Finish]:
        """Take every look that is due; whom to end, and how."""
        due: dict[Look, list[tuple[Run, Tensor]]] = {}
        counted: dict[Look, list[Run]] = {}
        for flight in flights:
            if flight.began:
                n_tokens = len(flight.run.generated) + 1
                for look in self._borders.looks_at(n_tokens):
                    counted.setdefault(look, []).append(flight.run)
            else:
                for look, span in flight.row.looks.items():
                    mean = self._pool.means(self._names[flight], span)
                    due.setdefault(look, []).append((flight.run, mean))
        ended: dict[Run, Finish] = {}
        for look in in_order(due):
            runs, means = zip(*due[look], strict=True)
            ended |= observe(self._observer, look, runs, torch.stack(means))
        for look in in_order(counted):
            theirs = counted[look]
            ended |= self._observe_responses(look, theirs, _with_next(theirs))
        return ended

    def _observe_responses(
        self, look: Look, runs: Sequence[Run], counts: Sequence[int]
    ) -> dict[Run, Finish]:
        means = self._borders.since(look, runs, self._running_means(runs, counts))
        return observe(self._observer, look, runs, means)

    def _running_means(self, runs: Sequence[Run], counts: Sequence[int]) -> Tensor:
        """Over the first so many tokens of responses: (n, L + 1, d)."""
        names = [self._names[self._seats.flights[run]] for run in runs]
        return self._pool.running_means(names, counts)

    def _end_judged(self, flight: Flight, ended: dict[Run, Finish]) -> None:
        """A row that starts no response has run: end its request, or go on with its next row."""
        run, finish = flight.run, ended.get(flight.run)
        self._seats.land(run)
        self._take_back(flight)
        traced = run.ask.response is not None
        if finish == "failed" or (finish is not None and not traced):
            self._end(run, finish)
        elif flight.after:
            self._give(self._seats.fly(*flight.after))
        elif traced:
            self._end(run, "traced")

    def _emit(self, runs: Sequence[Run], drawn: dict[Run, int], ended: dict[Run, Finish]) -> None:
        """Record and report each request's next token, or its end."""
        self._borders.keep(runs, ended, lambda due: self._running_means(due, _with_next(due)))
        tokens = [drawn[run] for run in runs]
        finishes = advance(runs, tokens, self._eos_ids, ended | self._draws.ended())
        if END in self.looks:
            finished = [run for run in finishes if finishes[run] in ("stop", "length")]
            if finished:
                counts = [len(run.generated) for run in finished]
                finishes |= self._observe_responses(END, finished, counts)
        for run, token in zip(runs, tokens, strict=True):
            end = finishes.get(run)
            logprobs = self._draws.logprobs(run, token)
            if end is None:
                self._steps.append(run.step(token, logprobs=logprobs))
            elif end in ("stop", "length"):
                self._end(run, end, token, logprobs)
            else:
                self._end(run, end)

    def _end(
        self,
        run: Run,
        finish: Finish,
        token: int | None = None,
        logprobs: TokenLogprobs | None = None,
    ) -> None:
        """Report a request's end, and take it back from vLLM."""
        run.finish = finish
        self._steps.append(run.step(token, finish, logprobs))
        flight = self._seats.land(run)
        if flight is not None:
            self._take_back(flight)
        self._seats.end(run)


def _with_next(runs: Sequence[Run]) -> list[int]:
    """How many tokens of each have run, or are predicted by what has, before the next is drawn."""
    return [len(run.generated) + 1 for run in runs]
