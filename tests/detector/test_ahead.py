"""Judging ahead: who may be refused is judged before there is a slot for it, without a model."""

from __future__ import annotations

from typing import Any

import pytest

from detector.engine.run import Run
from detector.engine.schedule import Schedule
from detector.engine.work import Decode, Prefill, Resume
from detector.errors import CapacityError
from tests.detector.planned import ask, judged, schedule, start


def occupied(**options: Any) -> tuple[Schedule, Run]:
    """A schedule of one slot, whose request has just decoded."""
    plan = schedule(n_slots=1, **options)
    plan.add([ask(3)])
    (running,) = start(plan)
    assert plan.next() == Decode((running,))
    return plan, running


def ahead(plan: Schedule) -> list[Run]:
    """Prefill what is next, which is to be of requests that go on waiting."""
    work = plan.next()
    assert isinstance(work, Prefill)
    assert not any(row.starts_response for row in work.rows)
    return [row.run for row in work.rows]


def test_who_may_be_refused_is_judged_ahead_once_and_keeps_its_place() -> None:
    plan, running = occupied(prefill_tokens=40)
    plain, refusable = ask(4), ask(5, refusable=True)
    plan.add([plain, refusable])
    (waiting,) = ahead(plan)
    assert waiting.ask is refusable
    assert isinstance(plan.next(), Decode)
    assert plan.capacity().n_waiting == 2
    plan.end(running)
    (second,) = start(plan)
    assert second.ask is plain
    plan.end(second)
    # Its prompt is kept: nothing is prefilled, or judged, twice.
    assert plan.next() == Resume((waiting,))
    assert plan.start([waiting]) == 0
    assert plan.next() == Decode((waiting,))


def test_one_that_is_refused_ahead_never_has_a_slot() -> None:
    plan, running = occupied(prefill_tokens=40)
    plan.add([ask(5, refusable=True) for _ in range(2)])
    refused, other = ahead(plan)
    assert plan.end(refused) is None
    plan.end(running)
    assert plan.next() == Resume((other,))


def test_a_question_apart_is_judged_ahead_and_the_prompt_prefilled_in_its_turn() -> None:
    plan, running = occupied(prefill_tokens=40)
    plan.add([ask(30, question=judged(7, 7), refusable=True)])
    work = plan.next()
    assert isinstance(work, Prefill)
    assert [(row.ids, row.kept) for row in work.rows] == [((7, 7), False)]
    plan.end(running)
    work = plan.next()
    assert isinstance(work, Prefill)
    assert [(len(row.ids), row.looks, row.starts_response) for row in work.rows] == [(30, {}, True)]


def test_judging_ahead_takes_a_part_of_the_budget_but_for_one_prompt_by_itself() -> None:
    plan, _ = occupied(prefill_tokens=40)
    plan.add([ask(n, refusable=True) for n in (5, 5, 5, 5, 5, 40, 41)])
    counts = []
    while isinstance(work := plan.next(), Prefill):
        counts.append([len(row.ids) for row in work.rows])
        assert isinstance(plan.next(), Decode)
    # Four of 5 are half of 40; the one of 41 would be prefilled in chunks, in its turn.
    assert counts == [[5] * 4, [5], [40]]


def test_prompts_are_kept_as_far_as_there_is_room_for_them() -> None:
    plan, running = occupied(max_length=10, prefill_tokens=200)
    plan.add([ask(5, refusable=True) for _ in range(6)])
    work = plan.next()
    assert isinstance(work, Prefill)
    # As many positions as two slots hold.
    assert [row.kept for row in work.rows] == [True] * 4 + [False] * 2
    for row in work.rows[:4]:
        plan.end(row.run)
    plan.end(running)
    (again,) = start(plan)
    assert again is work.rows[4].run
    assert plan.next() == Decode((again,))


def test_where_one_runs_alone_nobody_is_judged_ahead() -> None:
    plan, running = occupied(alone=True)
    plan.add([ask(4, refusable=True)])
    assert plan.next() == Decode((running,))


def test_tokens_are_admitted_by_a_bound_of_their_own_unless_nobody_waits() -> None:
    plan = schedule(n_slots=1, prefill_tokens=40, max_queue_tokens=20)
    plan.add([ask(30)])
    assert not plan.capacity().has_room
    with pytest.raises(CapacityError, match="35 of 20 tokens, 6 more"):
        plan.add([ask(1)])
    plan.end(start(plan)[0])
    plan.add([ask(5)])
    plan.add([ask(5)])
    assert plan.capacity().n_waiting_tokens == 20
    assert not plan.capacity().has_room
