"""A schedule by itself, and what tests ask of it."""

from __future__ import annotations

from typing import Any

from detector.backend import Ask, RenderedQuestion
from detector.engine.run import Run
from detector.engine.schedule import Schedule
from detector.engine.work import Prefill
from detector.trajectory import PROMPT


def schedule(**options: Any) -> Schedule:
    chosen: dict[str, Any] = {
        "n_slots": 2,
        "max_length": 100,
        "max_queue": 8,
        "max_queue_tokens": 1000,
        "prefill_tokens": 20,
        "alone": False,
        "n_tokens": 256,
        "clock": lambda: 0.0,
        **options,
    }
    return Schedule(frozenset({PROMPT}), **chosen)


def ask(n: int, **options: Any) -> Ask:
    return Ask((1,) * n, **{"max_tokens": 5, **options})


def judged(*ids: int) -> RenderedQuestion:
    return RenderedQuestion(ids, (0, len(ids)))


def start(plan: Schedule) -> list[Run]:
    """Prefill what is next, and have its generations run."""
    work = plan.next()
    assert isinstance(work, Prefill)
    started = [row.run for row in work.rows if row.starts_response]
    plan.start(started)
    for run in started:
        run.generated.append(1)
    return started
