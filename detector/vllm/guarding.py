"""Judges what vLLM runs for its own server, in the worker of its engine.

Which tokens come next is the server's and vLLM's. Here requests are watched that carry a ticket:
their trajectories are pooled, each look is taken in the step that has run what it looks at,
before that step's token is drawn, and whom a look ends is named to whoever masks that draw. What
has been judged is told at once.

Nothing that fails here may end a step of vLLM's: it fails the requests that it is about, and what
becomes of these their tickets say. This file knows nothing of vLLM.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detector.backend import Ask
from detector.detector import Detector
from detector.engine.prefill import Row
from detector.engine.run import Run
from detector.judge import Judge
from detector.trajectory import END, PROMPT_LOOKS, Look, in_order
from detector.vllm.pooling import Part
from detector.vllm.tickets import TRACED, Ticket, told, told_trajectory
from detector.vllm.watched import Call, Due, Flight, SafePool

Tell = Callable[[Mapping[str, Any]], object]
"""Told what has been judged of a call: its name, and by response what `told` says; of one that is
traced its name, a look and the trajectory there.
"""

_CHILD = re.compile(r"(\d+)_")
"""How vLLM begins the names of several responses to one prompt."""

_MOST_IDLE = 1024
"""Calls that are kept while nothing of them is run: before their responses begin, after which
their question has been judged, and after these have ended, until somebody asks how.
"""

log = logging.getLogger(__name__)


class Guard:
    """Judges by a detector, or where a ticket says so by that of another alpha."""

    def __init__(
        self, detector: Detector, others: Mapping[float, Detector], pool: SafePool, tell: Tell
    ) -> None:
        self.judge = Judge(detector)
        self.looks = self.judge.looks
        self._others = others
        self._pool = pool
        self._tell = tell
        self._calls: OrderedDict[str, Call] = OrderedDict()
        # By the names that vLLM has for them.
        self._flights: dict[str, Flight] = {}

    def begin(self, name: str, ids: Sequence[int], ticket: Ticket) -> None:
        """A sequence is run from vLLM's next step on."""
        if name in self._flights:
            return
        call = self._calls.get(ticket.call) or self._call(ticket)
        looks = call.looks & PROMPT_LOOKS
        index = None
        if not ticket.is_question:
            child = _CHILD.match(name) if ticket.n > 1 else None
            index = min(int(child[1]) if child else 0, ticket.n - 1)
        call.n_flying += 1
        # Of several responses the first is judged at the prompt, for all of them.
        looks = looks if ticket.is_question or (ticket.is_judged and index == 0) else frozenset()
        run = Run(call.asks[index or 0])
        starts = index is not None
        n_prompt = len(ids) - ticket.n_response
        prompt, response = tuple(ids[:n_prompt]), tuple(ids[n_prompt:])
        if response:
            looks = call.looks
        row = Row.of(run, prompt, looks, question=ticket.question, response=response, starts=starts)
        self._flights[name] = Flight(name, call, row, index)
        try:
            self._pool.watch(name, row, sums=starts and bool(call.looks - PROMPT_LOOKS))
        except Exception as error:
            self._break(self._flights[name], error)

    def _call(self, ticket: Ticket) -> Call:
        first = Ask((0,))
        asks = (first, *(Ask((0,), first=first) for _ in range(1, ticket.n)))
        judgements = tuple(ticket.judgement() for _ in asks)
        for ask, judgement in zip(asks, judgements, strict=True):
            if ticket.alpha is not None:
                judgement.detector = self._others[ticket.alpha]
            self.judge.watch(ask, judgement)
        looks = TRACED if ticket.traced else self.looks
        call = Call(ticket.call, looks, ticket.traced, asks, judgements)
        self._calls[ticket.call] = call
        if len(self._calls) > _MOST_IDLE:
            idle = (each for each in self._calls.values() if not each.n_flying)
            oldest = next(idle, call)
            if oldest is not call:
                del self._calls[oldest.name]
        return call

    def finish(self, name: str) -> None:
        """A sequence is run no further."""
        flight = self._flights.get(name)
        if flight is None:
            return
        call = flight.call
        if flight.index is not None:
            if END in call.looks:
                self.end(call.name, flight.index)
            call.n_ended += 1
        call.n_flying -= 1
        self._pool.forget(name)
        del self._flights[name]
        if call.is_over:
            del self._calls[call.name]

    def forget_step(self) -> None:
        """A step begins: what the pool was given last is over."""
        self._pool.parts = ()
        self._pool.errors.clear()

    def step(self) -> None:
        """Take the looks that are due after what the pool has just been given."""
        flights = [
            (part, self._flights[part.name])
            for part in self._pool.parts
            if part.name in self._flights
        ]
        for part, flight in flights:
            if (error := self._pool.errors.get(part.name)) is not None:
                self._break(flight, error)
        due = Due()
        for part, flight in flights:
            try:
                self._add_due(due, part, flight)
            except Exception as error:
                self._break(flight, error)
        self._take(due)

    def _break(self, flight: Flight, error: Exception) -> None:
        log_failure(error)
        flight.call.broken = type(error).__name__

    def _add_due(self, due: Due, part: Part, flight: Flight) -> None:
        """What is due of one that has run as far as the part goes, before its next token."""
        n_tokens = part.stop - len(flight.row.ids) + 1
        if n_tokens <= flight.n_looked:
            return  # not all of its prompt yet, or again, after vLLM had put it aside
        index, call = flight.index or 0, flight.call
        first, flight.n_looked = not flight.n_looked, n_tokens
        for look, span in flight.row.looks.items() if first else ():
            if call.broken is None:
                due.show(look, call, index, self._pool.means(part.name, span))
            else:
                due.failing.append((look, call, index, call.broken))
        # Of a response: its looks are at numbers of tokens over 1.
        if flight.index is not None and n_tokens > 1 and n_tokens in call.looks:
            due.running.setdefault(n_tokens, []).append(flight)

    def _read_running(self, due: Due) -> None:
        """The means of responses, one by one where reading all of a look raises."""
        for look, flights in due.running.items():
            whole = [flight for flight in flights if flight.call.broken is None]
            try:
                means = self._running_means(whole)
            except Exception:
                whole, means = self._running_means_of_each(whole)
            for flight, mean in zip(whole, means, strict=True):
                due.show(look, flight.call, flight.index or 0, mean)
            due.failing += [
                (look, flight.call, flight.index or 0, flight.call.broken)
                for flight in flights
                if flight.call.broken is not None
            ]
        due.running.clear()

    def _running_means(self, flights: Sequence[Flight]) -> Sequence[Tensor]:
        if not flights:
            return ()
        names = [flight.name for flight in flights]
        return list(self._pool.running_means(names, [flight.n_looked for flight in flights]))

    def _running_means_of_each(
        self, flights: Sequence[Flight]
    ) -> tuple[list[Flight], list[Tensor]]:
        whole, means = [], list[Tensor]()
        for flight in flights:
            try:
                means += self._running_means([flight])
                whole.append(flight)
            except Exception as error:
                self._break(flight, error)
        return whole, means

    def _take(self, due: Due) -> None:
        """Judge, and tell of all who were judged, once each."""
        self._read_running(due)
        judged: dict[Call, set[int]] = {}
        for look in in_order(due.shown):
            shown = [each for each in due.shown[look] if not self._trace(look, *each)]
            if not shown:
                continue
            means = torch.stack([mean for _, _, mean in shown])
            finite = means.isfinite().flatten(1).all(1).tolist()
            asks = []
            for is_finite, (call, index, _) in zip(finite, shown, strict=True):
                if is_finite:
                    asks.append(call.asks[index])
                    judged.setdefault(call, set()).update(_affected(look, call, index))
                else:
                    due.failing.append((look, call, index, None))
            if asks:
                self._observe(look, asks, means[finite])
        for look, call, index, error in due.failing:
            self.judge.fail(look, call.asks[index], error)
            judged.setdefault(call, set()).update(_affected(look, call, index))
        for call, indices in judged.items():
            call.ending |= {index for index in indices if call.judgements[index].ended}
            self._tell_of(call, indices)

    def _trace(self, look: Look, call: Call, index: int, mean: Tensor) -> bool:
        """Tell of a trajectory that is traced; whether it is."""
        if call.traced:
            self._tell({"call": call.name, "look": look, "trajectory": told_trajectory(mean)})
        return call.traced

    def _observe(self, look: Look, asks: Sequence[Ask], means: Tensor) -> None:
        try:
            self.judge.observe(look, asks, means)
        except Exception as error:
            log_failure(error)
            for ask in asks:
                self.judge.fail(look, ask, type(error).__name__)

    def _tell_of(self, call: Call, indices: Iterable[int]) -> None:
        said = {str(index): told(call.judgements[index]) for index in indices}
        try:
            self._tell({"call": call.name, "judged": said})
        except Exception as error:
            # Who waits for it waits in vain, and takes it for a failure.
            log_failure(error)

    def ends(self, names: Sequence[str]) -> list[int]:
        """Which of these responses are to end now, by their places."""
        return [
            place
            for place, name in enumerate(names)
            if (flight := self._flights.get(name)) is not None
            and flight.index in flight.call.ending
        ]

    def end(self, call_name: str, index: int) -> dict[str, Any] | None:
        """Take the look at the end of a response, which vLLM runs no further, if that was not
        done; what has been judged of it, None where nobody knows of it.
        """
        call = self._calls.get(call_name)
        if call is None:
            return None
        judgement = call.judgements[index]
        taken = any(look.look == END for look in judgement.looks)
        if END in call.looks and not taken and not judgement.ended:
            flights = [
                flight
                for flight in self._flights.values()
                if flight.call is call and flight.index == index and flight.n_looked
            ]
            self._take(Due(running={END: flights} if flights else {}))
        return told(judgement)


def _affected(look: Look, call: Call, index: int) -> Iterable[int]:
    """Whose judgements a look changes: what is judged of a prompt holds for all responses."""
    return range(len(call.asks)) if look in PROMPT_LOOKS else (index,)


def log_failure(error: Exception) -> None:
    # The message may quote tensors, so only its type and place are logged.
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error("judging failed: %s\n%s", type(error).__name__, place)
