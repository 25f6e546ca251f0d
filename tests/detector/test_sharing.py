"""Further responses to a prompt begin with a copy of its keys: what they get is what they get
alone, and the prompt is prefilled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch

from detector.backend import Ask, Sampling
from detector.engine import runner
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.prefill import Row
from detector.engine.work import Share
from detector.trajectory import END
from tests.detector.plain import Plain, Seen, drain, prompt, question
from tests.detector.test_ends import poisoned, several
from tests.tiny import tiny_checkpoint

WARM = Sampling(temperature=1.0)


@cache
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


class Counted:
    """Counts the prompts that an engine prefills and the responses that begin without."""

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.rows = self.chunks = self.shared = 0
        prefill, chunk, follow = (
            engine._runner.prefill,
            engine._runner.prefill_chunk,
            engine._schedule.next,
        )

        def prefilled(rows: Sequence[Row], *given: object) -> object:
            self.rows += len(rows)
            return prefill(rows, *given)  # type: ignore[arg-type]

        def chunked(*given: object) -> object:
            self.chunks += 1
            return chunk(*given)  # type: ignore[arg-type]

        def followed() -> object:
            work = follow()
            if isinstance(work, Share):
                self.shared += len(work.begun)
            return work

        patch.setattr(engine._runner, "prefill", prefilled)
        patch.setattr(engine._runner, "prefill_chunk", chunked)
        patch.setattr(engine._schedule, "next", followed)


def alone(request: Ask) -> list[int]:
    engine = Engine(checkpoint(), n_slots=1, max_length=256)
    mine = replace(request, first=None)
    engine.submit(mine)
    tokens, _ = drain(engine)
    engine.close()
    return tokens[mine]


def test_a_prompt_is_prefilled_once_for_all_its_responses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = Seen()
    engine = Engine(checkpoint(), looks=(2, 4, END), observer=seen, n_slots=16, max_length=256)
    counted = Counted(engine, monkeypatch)
    requests = several(8, Ask(prompt(40, 1), max_tokens=9, sampling=WARM, seed=0))
    engine.submit(*requests)
    tokens, _ = drain(engine)
    engine.close()
    assert (counted.rows, counted.shared) == (1, 7)
    assert [tokens[request] for request in requests] == [alone(request) for request in requests]
    plain = Plain(checkpoint())
    for request in requests:
        for look in (2, 4, END):
            expected = plain.trajectory(request, tuple(tokens[request]), look)
            error = (seen.trajectories[request, look] - expected).norm(dim=1)
            assert (error <= 1e-5 * expected.norm(dim=1)).all()


@pytest.mark.parametrize(("n_slots", "prefill_tokens"), [(3, 512), (16, 16), (2, 16)])
def test_greedy_responses_equal_plain_ones_in_any_batch(n_slots: int, prefill_tokens: int) -> None:
    """More of them than slots, prompts in chunks, and others between."""
    seen = Seen()
    engine = Engine(
        checkpoint(),
        looks=(2, 4, END),
        observer=seen,
        n_slots=n_slots,
        max_length=256,
        prefill_tokens=prefill_tokens,
    )
    firsts = [Ask(prompt(75, 1), max_tokens=6), Ask(prompt(9, 2), max_tokens=6, refusable=True)]
    requests = [*several(4, firsts[0]), Ask(prompt(33, 3), max_tokens=3), *several(3, firsts[1])]
    engine.submit(*requests)
    tokens, _ = drain(engine)
    engine.close()
    plain = Plain(checkpoint())
    for request in requests:
        assert tokens[request] == plain.greedy(request.prompt, request.max_tokens)
        for look in (2, 4, END):
            if look <= len(tokens[request]):
                expected = plain.trajectory(request, tuple(tokens[request]), look)
                error = (seen.trajectories[request, look] - expected).norm(dim=1)
                assert (error <= 1e-5 * expected.norm(dim=1)).all()


def test_a_long_prompt_is_prefilled_in_chunks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(checkpoint(), n_slots=4, max_length=256, prefill_tokens=32)
    counted = Counted(engine, monkeypatch)
    requests = several(4, Ask(prompt(100, 1), max_tokens=5, sampling=WARM, seed=0))
    engine.submit(*requests)
    tokens, _ = drain(engine)
    engine.close()
    assert (counted.rows, counted.chunks, counted.shared) == (0, 4, 3)
    assert [tokens[request] for request in requests] == [alone(request) for request in requests]


def test_one_takes_the_prompt_from_the_next_where_the_first_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(checkpoint(), n_slots=2, max_length=256)
    counted = Counted(engine, monkeypatch)
    first = Ask(prompt(20, 1), max_tokens=3, sampling=WARM, seed=0)
    requests = [
        first,
        *(replace(first, first=first, seed=seed, max_tokens=3 + seed) for seed in range(1, 6)),
    ]
    engine.submit(*requests)
    tokens, _ = drain(engine)
    engine.close()
    # Two run at any time and end apart, so that one always has the keys.
    assert (counted.rows, counted.shared) == (1, 5)
    assert [tokens[request] for request in requests] == [alone(request) for request in requests]


def test_where_nobody_runs_on_it_any_more_the_prompt_is_prefilled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(checkpoint(), n_slots=1, max_length=256)
    counted = Counted(engine, monkeypatch)
    requests = several(3, Ask(prompt(20, 1), max_tokens=3, sampling=WARM, seed=0))
    engine.submit(*requests)
    tokens, _ = drain(engine)
    engine.close()
    assert (counted.rows, counted.shared) == (3, 0)
    assert [tokens[request] for request in requests] == [alone(request) for request in requests]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_first_one_that_is_cancelled_leaves_the_others_be(after: int) -> None:
    engine = Engine(checkpoint(), n_slots=2, max_length=256)
    requests = several(4, Ask(prompt(20, 1), max_tokens=6, sampling=WARM, seed=0))
    engine.submit(*requests)
    tokens: dict[Ask, list[int]] = {request: [] for request in requests}
    finishes = {}
    for n in range(200):
        if n == after:
            engine.cancel(requests[0])
        if not engine.busy:
            break
        for step in engine.step():
            tokens[step.ask] += [] if step.token is None else [step.token]
            finishes[step.ask] = step.finish
    engine.close()
    assert finishes[requests[0]] == "cancelled"
    for request in requests[1:]:
        assert tokens[request] == alone(request)


def test_a_prompt_of_nan_fails_all_and_its_slot_serves_the_next() -> None:
    engine = Engine(poisoned(200), n_slots=4, max_length=128)
    broken = several(3, Ask((5, 200, 7), max_tokens=4))
    sound = several(3, Ask((5, 6, 7), max_tokens=4, sampling=WARM, seed=0))
    engine.submit(*broken, *sound)
    tokens, finishes = drain(engine)
    engine.close()
    assert {finishes[request] for request in broken} == {"failed"}
    assert {finishes[request] for request in sound} == {"length"}
    assert not any(request in tokens for request in broken)


def test_a_response_of_nan_fails_alone_and_hands_no_nan_on() -> None:
    """Greedy ones all fail where the first does; what comes to their slots does not."""
    plain = Plain(checkpoint())
    ids = prompt(10, 3)
    solo = plain.greedy(ids, 12)
    token = next(t for n, t in enumerate(solo) if n > 1 and t not in ids)
    engine = Engine(poisoned(token), n_slots=2, max_length=128)
    broken = several(3, Ask(ids, max_tokens=12))
    engine.submit(*broken)
    _, finishes = drain(engine)
    assert set(finishes.values()) == {"failed"}
    other = Ask((1, 2, 3), max_tokens=1)
    engine.submit(other)
    _, finishes = drain(engine)
    engine.close()
    assert finishes == {other: "length"}


def test_only_the_same_prompt_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(checkpoint(), n_slots=4, max_length=256)
    counted = Counted(engine, monkeypatch)
    first = Ask(prompt(20, 1), max_tokens=6, question=question(5, 2))
    other = Ask(prompt(21, 3), max_tokens=6, first=first)
    engine.submit(first, other)
    tokens, _ = drain(engine)
    engine.close()
    assert (counted.rows, counted.shared) == (2, 0)
    assert tokens[other] == alone(other)


def test_one_at_a_time_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "why_not_in_slots", lambda _: "said so")
    seen = Seen()
    engine = Engine(checkpoint(), looks=(2,), observer=seen, max_length=256)
    requests = several(3, Ask(prompt(20, 1), max_tokens=5))
    engine.submit(*requests)
    tokens, _ = drain(engine)
    engine.close()
    plain = Plain(checkpoint())
    assert [tokens[request] for request in requests] == [plain.greedy(prompt(20, 1), 5)] * 3


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.5)])
def test_the_average_distribution_is_that_before_the_draw(sampling: Sampling) -> None:
    engine = Engine(checkpoint(), n_slots=4, max_length=256)
    first = Ask(prompt(20, 1), max_tokens=6, sampling=sampling, seed=3, averaged=True)
    plain = replace(first, first=first, averaged=False)
    requests = [first, replace(first, first=first, seed=4), plain]
    engine.submit(*requests)
    tokens: dict[Ask, list[int]] = {request: [] for request in requests}
    averaged = {}
    while engine.busy:
        for step in engine.step():
            tokens[step.ask] += [] if step.token is None else [step.token]
            assert step.averaged is None or step.finish is not None
            if step.finish is not None:
                averaged[step.ask] = step.averaged
    engine.close()
    assert averaged[plain] is None
    for request in requests[:2]:
        ids = torch.tensor([[*request.prompt, *tokens[request][:-1]]])
        with torch.inference_mode():
            logits = checkpoint().model(ids).logits[0, len(request.prompt) - 1 :]
        found = averaged[request]
        assert found is not None
        assert torch.allclose(found, logits.softmax(-1).mean(0), atol=1e-5)
