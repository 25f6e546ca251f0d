"""Conversations judged together, without anything to generate: `/v1/score`, and what gateways ask.

Each is an ask of its own, with a verdict, an event and a line in the log; they share a prefill as
far as the queue takes them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from app.asking.asked import Asked
from app.judging import Judged
from app.loading import Loaded
from app.policy import decision_of
from app.second_opinion.opinions import Opinions
from detector.backend import Ask, Capacity, Timings
from detector.errors import TrajGuardError


async def score(
    loaded: Loaded,
    asked: Sequence[Asked],
    judged: Callable[[Judged], None],
    request_id: str,
    opinions: Opinions,
) -> None:
    """Have all of them read; their judgements hold the verdicts, and the second opinions of those
    that are flagged. Tells `judged` of each, once.

    Where the queue has no room for all, they go in several batches. Raises CapacityError where it
    has none at all, DeadlineError, EngineError, and NotReadyError when the service stops before
    the end. Cancelling this cancels what is left.
    """
    left = list(asked)
    while left:
        n = _that_fit(loaded.engine.capacity(), [ask for each in left for ask in each.asks])
        batch, left = left[:n], left[n:]
        first = len(asked) - len(left) - n
        ids = [request_id if len(asked) == 1 else f"{request_id}/{first + i}" for i in range(n)]
        await _score_batch(loaded, batch, judged, ids, opinions)


async def _score_batch(
    loaded: Loaded,
    batch: Sequence[Asked],
    judged: Callable[[Judged], None],
    ids: Sequence[str],
    opinions: Opinions,
) -> None:
    steps = loaded.submit(
        Asked(
            tuple(ask for each in batch for ask in each.asks),
            tuple(judgement for each in batch for judgement in each.judgements),
            batch[0].modes,
            batch[0].alpha,
        )
    )
    code: str | None = None
    timings: dict[Ask, Timings] = {}
    began = time.perf_counter()
    try:
        async for step in steps:
            if step.timings is not None:
                timings[step.ask] = step.timings
        await opinions.reconsider(loaded, batch)
    except TrajGuardError as error:
        code = error.code
        raise
    finally:
        steps.close()
        seconds = time.perf_counter() - began
        for each, name in zip(batch, ids, strict=True):
            judged(_event(each, name, code, timings.get(each.asks[0]), seconds))


def _that_fit(capacity: Capacity, asks: Sequence[Ask]) -> int:
    """How many of them the queue takes now; 1 where it takes none, to be told so."""
    n_tokens = n = 0
    for ask in asks:
        n_tokens += ask.n_positions
        # Where nobody waits, tokens do not matter to the queue; a batch keeps to their bound.
        if not capacity.admits(n + 1, n_tokens) or (n and n_tokens > capacity.max_queue_tokens):
            break
        n += 1
    return max(n, 1)


def _event(
    asked: Asked, request_id: str, error: str | None, timings: Timings | None, seconds: float
) -> Judged:
    (ask,), (judgement,) = asked.asks, asked.judgements
    verdict = judgement.verdict
    decision = None
    if verdict is not None and error is None:
        decision = decision_of(judgement)
    return Judged(
        request_id=request_id,
        mode=asked.modes.at(None if verdict is None else verdict.stage),
        verdict=verdict,
        decision=decision,
        n_prompt=len(ask.prompt),
        n_response=0,
        first_token_seconds=None,
        error=error,
        question=asked.question,
        timings=() if timings is None else (timings,),
        seconds=seconds,
        opinion=judgement.opinion,
        places=judgement.places,
    )
