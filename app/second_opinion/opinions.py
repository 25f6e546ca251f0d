"""Asking for second opinions: how many at once, for how long, and what if there is none.

A question stays flagged unless an opinion frees it: where too many are asked for, one takes too
long, or it fails, stage one's decision stands, and the verdict says why.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace

from app.asking.asked import Asked
from app.loading import Loaded
from app.second_opinion.giving import Flagged, SecondOpinion
from app.second_opinion.known import KINDS
from app.second_opinion.metrics import OpinionMetrics
from app.settings import Settings
from detector.errors import TrajGuardError
from detector.opinion import Opinion

log = logging.getLogger(__name__)

WAITING = 4
"""So many wait, at most, for each that may be asked for at once."""

FULL = "too many second opinions are asked for already"


class Opinions:
    """Asks for the second opinion that the settings name, if they name one. For one event loop."""

    def __init__(self, settings: Settings, metrics: OpinionMetrics) -> None:
        self._name = settings.second_opinion
        self._at_once = settings.second_opinion_at_once
        self._seconds = settings.second_opinion_seconds
        self._metrics = metrics
        self._places = asyncio.Semaphore(self._at_once)
        self._n_inside = 0
        self._made: tuple[Loaded, SecondOpinion] | None = None

    def are_due(self, asked: Asked) -> bool:
        """Whether a flag at the prompt is followed by one: never in shadow mode."""
        return self._name != "none" and asked.modes.prompt != "shadow"

    async def about(
        self, loaded: Loaded, flagged: Flagged, within_seconds: float = math.inf
    ) -> Opinion:
        """One that there always is, be it that none could be had."""
        began = time.perf_counter()
        opinion: Opinion | None = None
        try:
            opinion = await self._given(loaded, flagged, min(within_seconds, self._seconds))
            opinion = replace(opinion, seconds=time.perf_counter() - began)
            return opinion
        finally:
            # None where the client has left.
            self._metrics.told(str(self._name), opinion)

    async def reconsider(self, loaded: Loaded, asked: Sequence[Asked]) -> None:
        """Add opinions to the judgements of those that were read and are flagged at the prompt
        alone, all at once as far as there is room. Nothing is answered here.
        """
        if self._name == "none" or KINDS[self._name].answers:
            return
        due = []
        for each in asked:
            (ask,), (judgement,) = each.asks, each.judgements
            verdict = judgement.verdict
            if verdict is not None and verdict.flagged_stages == {"prompt"} and self.are_due(each):
                due.append((judgement, Flagged(ask, verdict, each.conversations[0])))
        given = await asyncio.gather(*(self.about(loaded, flagged) for _, flagged in due))
        for (judgement, _), opinion in zip(due, given, strict=True):
            judgement.opinion = opinion

    async def _given(self, loaded: Loaded, flagged: Flagged, seconds: float) -> Opinion:
        if self._n_inside >= (1 + WAITING) * self._at_once:
            return self._failed(FULL)
        self._n_inside += 1
        try:
            async with asyncio.timeout(max(seconds, 0)), self._places:
                opinion = await self._of(loaded).give(flagged)
        except TimeoutError:
            return self._failed(f"there was none within {seconds:.3g} seconds")
        except TrajGuardError as error:
            return self._failed(error.code)
        except Exception as error:
            # Its message may quote the question.
            log.error("a second opinion failed (%s)", type(error).__name__)
            return self._failed(type(error).__name__)
        finally:
            self._n_inside -= 1
        if opinion.score is not None and not math.isfinite(opinion.score):
            return replace(
                opinion, frees=False, failure="its score is NaN or infinite", response=None
            )
        return opinion

    def _of(self, loaded: Loaded) -> SecondOpinion:
        """The one by what is in force, which a reload changes."""
        assert self._name != "none"
        if self._made is None or self._made[0] is not loaded:
            self._made = loaded, KINDS[self._name].make(loaded)
        return self._made[1]

    def _failed(self, failure: str) -> Opinion:
        return Opinion(str(self._name), frees=False, failure=failure)
