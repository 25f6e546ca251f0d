"""The engine gives each request what it would get alone from plain transformers."""

import gc
import weakref

import pytest
import torch

from detector.backend import Ask, Finish, RenderedQuestion, Sampling
from detector.engine.collector import decoder_layers
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.slot_runner import SlotRunner
from detector.errors import CapacityError, EngineError, PromptTooLongError, RequestError
from detector.trajectory import PROMPT
from tests.detector.plain import (
    LOOKS,
    Plain,
    Seen,
    assert_equal_to_plain,
    assert_mixed_batch_equals_plain,
    drain,
    mixed_requests,
    plain_greedy,
    prompt,
    question,
)
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


def test_mixed_batches_equal_plain_transformers(checkpoint: Checkpoint) -> None:
    assert_mixed_batch_equals_plain(checkpoint, [(1, 32), (3, 64), (4, 48), (16, 512)])


def test_neighbours_that_leave_change_nothing(checkpoint: Checkpoint) -> None:
    seen = Seen()
    engine = Engine(
        checkpoint, looks=LOOKS, observer=seen, n_slots=3, max_length=256, prefill_tokens=48
    )
    leaving = [Ask(prompt(20 + 30 * seed, 40 + seed), max_tokens=30) for seed in range(4)]
    staying = mixed_requests()
    seen.ends = {leaving[0]: PROMPT, leaving[1]: 4}
    for pair in zip(leaving, staying, strict=False):
        for request in pair:
            engine.submit(request)
    for request in staying[len(leaving) :]:
        engine.submit(request)
    tokens: dict[Ask, list[int]] = {}
    finishes: dict[Ask, Finish] = {}
    n_steps = 0
    while engine.busy:
        n_steps += 1
        if n_steps == 4:
            engine.cancel(leaving[2])
            engine.cancel(leaving[3])
        for step in engine.step():
            if step.token is not None:
                tokens.setdefault(step.ask, []).append(step.token)
            if step.finish is not None:
                finishes[step.ask] = step.finish
    engine.close()
    assert leaving[0] not in tokens
    assert finishes[leaving[0]] == "judged"
    # The look at 4 tokens comes before the fourth is emitted.
    assert len(tokens[leaving[1]]) == 3
    assert finishes[leaving[1]] == "judged"
    assert finishes[leaving[2]] == finishes[leaving[3]] == "cancelled"
    assert_equal_to_plain(Plain(checkpoint), seen, staying, tokens)


def test_refused_question_spares_its_long_prompt(checkpoint: Checkpoint) -> None:
    request = Ask(prompt(200, 1), max_tokens=4, question=question(5, 2))
    seen = Seen(ends={request: PROMPT})
    engine = Engine(checkpoint, looks=(PROMPT,), observer=seen, max_length=256, prefill_tokens=32)
    engine.submit(request)
    (step,) = engine.step()
    assert (step.token, step.finish) == (None, "judged")
    assert not engine.busy
    engine.close()


def test_seeded_sampling_is_the_same_alone_and_in_a_batch(checkpoint: Checkpoint) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, top_k=50)
    engine = Engine(checkpoint, n_slots=4, max_length=256)

    def seeded() -> Ask:
        return Ask(prompt(10, 5), max_tokens=12, sampling=sampling, seed=7)

    alone = seeded()
    engine.submit(alone)
    tokens, _ = drain(engine)
    batched = seeded()
    for request in [
        Ask(prompt(30, 6), max_tokens=20),
        batched,
        Ask(prompt(4, 8), max_tokens=3, sampling=sampling, seed=1),
    ]:
        engine.submit(request)
    again, _ = drain(engine)
    engine.close()
    assert again[batched] == tokens[alone]
    assert tokens[alone] != plain_greedy(checkpoint, alone.prompt, 12)


def test_submit_refuses_what_cannot_fit_and_what_must_wait_too_long(
    checkpoint: Checkpoint,
) -> None:
    engine = Engine(checkpoint, max_length=64, max_queue=2)
    with pytest.raises(PromptTooLongError, match="60 tokens and the request 65"):
        engine.submit(Ask(prompt(60, 0), max_tokens=5))
    engine.submit(Ask(prompt(60, 0), max_tokens=4))
    engine.submit(Ask(prompt(3, 0)))
    with pytest.raises(CapacityError, match="2 of 2 places are taken, 1 more"):
        engine.submit(Ask(prompt(3, 0)))
    assert engine.capacity().n_waiting == 2
    drain(engine)
    assert engine.capacity().n_waiting == engine.capacity().n_running == 0
    engine.close()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Ask((5, 6), max_tokens=0), "max_tokens is 0: ask for at least 1"),
        (Ask((5, 6), max_tokens=-3), "max_tokens is -3: ask for at least 1"),
        (Ask(()), "the prompt has no tokens"),
        (Ask((5,), question=RenderedQuestion((), (0, 0))), "the question has no tokens"),
        (Ask((5, 257)), "the prompt has a token that the model's 257 do not include"),
        (Ask((5,), response=(-1,)), "the response has a token"),
        (Ask((5,), max_tokens=10**12), "the request 1000000000001 in all; a slot holds 64"),
    ],
)
def test_a_bad_request_is_refused_alone(checkpoint: Checkpoint, bad: Ask, message: str) -> None:
    engine = Engine(checkpoint, max_length=64)
    good = Ask(prompt(9, 0), max_tokens=5)
    engine.submit(good)
    with pytest.raises(RequestError, match=message):
        engine.submit(bad)
    tokens, _ = drain(engine)
    engine.close()
    assert tokens == {good: plain_greedy(checkpoint, good.prompt, 5)}


def test_a_model_runs_under_one_engine_at_a_time(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, max_length=64)
    with pytest.raises(EngineError, match="'tiny' already runs under an engine"):
        Engine(checkpoint, max_length=64)
    engine.submit(Ask(prompt(5, 0), max_tokens=3))
    drain(engine)
    engine.close()
    engine.close()
    Engine(checkpoint, max_length=64).close()


def test_hooks_are_there_only_while_something_is_collected(checkpoint: Checkpoint) -> None:
    """A closed engine leaves none, and a guard of the prompt alone has none in decoding."""
    layers = decoder_layers(checkpoint.model)

    def n_hooks() -> int:
        return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in layers)

    before = n_hooks()
    for looks, in_prefill, in_decoding in (
        (LOOKS, len(layers) + 1, len(layers) + 1),
        ((PROMPT,), len(layers) + 1, 0),
        ((), 0, 0),
    ):
        engine = Engine(checkpoint, looks=looks, max_length=64)
        engine.submit(Ask(prompt(5, 0), max_tokens=6))
        engine.step()
        assert n_hooks() == before + in_prefill
        engine.step()
        assert n_hooks() == before + in_decoding
        drain(engine)
        engine.close()
        assert n_hooks() == before


def test_a_closed_engine_leaves_nothing_behind(checkpoint: Checkpoint) -> None:
    """Without the garbage collector, which counts objects and not their bytes: engines that
    wait for it, one a questions file, fill the memory.
    """
    gc.disable()
    try:
        gone = []
        for _ in range(20):
            engine = Engine(checkpoint, looks=LOOKS, observer=Seen(), n_slots=1, max_length=64)
            engine.submit(Ask(prompt(5, 0), max_tokens=3), Ask(prompt(60, 1)))
            # One that is judged ahead and kept, which ends, and one that never does.
            engine.submit(*(Ask(prompt(7, n), max_tokens=9, refusable=True) for n in (2, 3)))
            n_tokens = 0
            while n_tokens < 12:
                n_tokens += sum(step.token is not None for step in engine.step())
            assert isinstance(engine._runner, SlotRunner)
            cache = engine._runner._cache
            kept = [engine, engine._runner, cache, *(slots._storage for slots in cache._all)]
            gone += [weakref.ref(each) for each in kept]
            del cache, kept
            engine.close()
            del engine
        assert [ref() for ref in gone] == [None] * len(gone)
    finally:
        gc.enable()


def test_an_engine_that_is_closed_but_held_gives_its_memory_back(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, n_slots=4, max_length=64)
    assert isinstance(engine._runner, SlotRunner)
    storage = weakref.ref(engine._runner._cache._all[0]._storage)
    engine.close()
    assert storage() is None


def test_a_step_that_failed_leaves_no_key_behind() -> None:
    """A NaN that it wrote would reach whoever comes next through the mask: 0 * NaN is NaN."""
    checkpoint = tiny_checkpoint()
    engine = Engine(checkpoint, n_slots=2, max_length=64, prefill_tokens=16)
    asks = [Ask(prompt(5, n), max_tokens=9) for n in range(2)]
    engine.submit(*asks, Ask(prompt(40, 3), max_tokens=9))
    for _ in range(3):
        engine.step()
    assert isinstance(engine._runner, SlotRunner)
    for slots in engine._runner._cache._all:
        slots._storage.fill_(torch.nan)
        slots.staged.fill_(torch.nan)
    engine.abandon()
    assert not engine.busy
    again = [Ask(prompt(5, n), max_tokens=9) for n in range(2)] + [Ask(prompt(40, 3), max_tokens=9)]
    engine.submit(*again)
    tokens, finishes = drain(engine)
    engine.close()
    assert set(finishes) == set(again)
    for ask in again:
        assert tokens[ask] == plain_greedy(checkpoint, ask.prompt, 9)
