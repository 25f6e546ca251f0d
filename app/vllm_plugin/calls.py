"""The calls of vLLM's engine under way, and what its worker tells of them.

A call is one prompt's responses. The worker tells on a socket what it has judged, before the
tokens that come of the same step; here it is put into judgements like the worker's own, so that
what a verdict leads to is worked out by the service's code.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.vllm_plugin.asking import Asked
from detector.judge import Judgement
from detector.trajectory import END, PROMPT_LOOKS, Look, in_order
from detector.verdict import LookScore
from detector.vllm.tickets import Ticket, fail, hear

if TYPE_CHECKING:
    from detector.detector import Detector

PATIENCE = 30.0
"""Seconds that a verdict may come after the token that it is about, before it is given up."""

_LOST = "VerdictLost"

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Call:
    """`judgements` are of its responses; `n_tokens` says how many each has by now."""

    name: str
    ticket: Ticket
    detector: Detector
    judgements: tuple[Judgement, ...]
    n_tokens: list[int]
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def looks(self) -> frozenset[Look]:
        return frozenset(fitted.look for fitted in self.detector.looks)

    async def judged_at_prompt(self) -> None:
        """Once its prompt is judged, at all looks at once."""
        await self._taken(0, self.looks & PROMPT_LOOKS, also_after_end=True)

    async def judged_at_response(self, index: int) -> None:
        """Once all looks are taken that the tokens so far come after, but the one at the end."""
        n_tokens = self.n_tokens[index]
        later = {look for look in self.looks - PROMPT_LOOKS - {END} if look <= n_tokens}
        if later:
            await self._taken(index, later)

    async def _taken(
        self, index: int, looks: Iterable[Look], *, also_after_end: bool = False
    ) -> None:
        """Once these looks are taken, or one that ends it; those that never are have failed."""
        judgement = self.judgements[index]
        try:
            async with asyncio.timeout(PATIENCE):
                while missing := set(looks) - {look.look for look in judgement.looks}:
                    if judgement.ended and not also_after_end:
                        return
                    self.heard.clear()
                    await self.heard.wait()
        except TimeoutError:
            log.error("the worker has told nothing of a look: taken for a failure")
            self.lose(index, missing)

    def lose(self, index: int, looks: Iterable[Look]) -> None:
        """Looks of which nothing was told, at a prompt of all its responses."""
        for look in in_order(looks):
            lost = [
                LookScore(look, fitted.part.score_name, math.nan, math.nan, (), error=_LOST)
                for fitted in self.detector.looks
                if fitted.look == look
            ]
            everybody = self.judgements if look in PROMPT_LOOKS else (self.judgements[index],)
            for judgement in everybody:
                excluded = judgement.exclusions.at(look)
                theirs = [LookScore(**{**vars(each), "excluded": excluded}) for each in lost]
                fail(judgement, theirs, self.detector.alpha)


@dataclass(eq=False)
class Traced:
    """What is told of a call of the self-test: trajectories by look, as they are told."""

    trajectories: dict[Look, Any] = field(default_factory=dict)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def all_of(self, looks: Collection[Look]) -> dict[Look, Any]:
        """Once all are there. Raises TimeoutError where they never come."""
        async with asyncio.timeout(PATIENCE):
            while not self.trajectories.keys() >= set(looks):
                self.heard.clear()
                await self.heard.wait()
        return self.trajectories


class Calls:
    """Those under way, by name. `end_look` asks the worker for a look at a response's end."""

    def __init__(
        self, detector: Detector, others: dict[float, Detector], end_look: Callable[..., Any]
    ) -> None:
        self.looks_at_prompt = frozenset(fitted.look for fitted in detector.looks) & PROMPT_LOOKS
        self._detector = detector
        self._others = others
        self._end_look = end_look
        self._calls: dict[str, Call] = {}
        self._traced: dict[str, Traced] = {}
        self._numbers = itertools.count()
        self._listening: asyncio.Task[None] | None = None

    def name(self) -> str:
        """One that no other call has."""
        return f"{os.getpid()}-{next(self._numbers)}"

    @contextmanager
    def traced(self, name: str) -> Iterator[Traced]:
        """What is told of a call that is traced, for a while."""
        self._traced[name] = Traced()
        try:
            yield self._traced[name]
        finally:
            del self._traced[name]

    async def trace_end(self, name: str) -> None:
        """Have the last look at one taken that is traced."""
        await self._end_look("end_look", args=(name, 0))

    def begin(self, ticket: Ticket, asked: Asked) -> Call:
        detector = self._detector if asked.alpha is None else self._others[asked.alpha]
        judgements = tuple(ticket.judgement() for _ in range(ticket.n))
        for judgement in judgements:
            judgement.detector = detector
        call = Call(ticket.call, ticket, detector, judgements, [0] * ticket.n)
        self._calls[call.name] = call
        return call

    def end(self, call: Call) -> None:
        self._calls.pop(call.name, None)

    async def look_at_end(self, call: Call, index: int) -> None:
        """Have the last look at a response taken that has ended by itself."""
        if END not in call.looks or call.judgements[index].ended:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                (said, *_) = await self._end_look("end_look", args=(call.name, index))
            if (read := json.loads(said)) is not None:
                hear(call.judgements[index], read)
        except Exception as error:
            log.error("the worker did not take a look at the end: %s", type(error).__name__)
        if END not in {look.look for look in call.judgements[index].looks}:
            call.lose(index, {END})

    def hear(self, message: bytes) -> None:
        said = json.loads(message)
        if (trajectory := said.get("trajectory")) is not None:
            if (traced := self._traced.get(said["call"])) is not None:
                traced.trajectories[said["look"]] = trajectory
                traced.heard.set()
            return
        call = self._calls.get(said["call"])
        if call is None:
            return
        for index, judged in said["judged"].items():
            hear(call.judgements[int(index)], judged)
        call.heard.set()

    def listen(self, address: str) -> None:
        """Hear what the worker tells, for as long as the loop runs."""
        import zmq
        import zmq.asyncio

        socket = zmq.asyncio.Context.instance().socket(zmq.PULL)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.bind(address)

        async def listen() -> None:
            while True:
                message = await socket.recv()
                try:
                    self.hear(message)
                except Exception as error:
                    log.error("the worker told what is no verdict: %s", type(error).__name__)

        self._listening = asyncio.get_running_loop().create_task(listen())
