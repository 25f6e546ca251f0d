"""The engine gives each request what it would get alone from plain transformers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.engine.checkpoint import Checkpoint
from detector.engine.collector import decoder_layers
from detector.engine.engine import Engine
from detector.engine.request import Finish, Request
from detector.errors import CapacityError, PromptTooLongError
from detector.manifest import Sampling
from detector.trajectory import END, PROMPT, PROMPT_LOOKS, PROMPT_MEAN, Look
from tests.tiny import tiny_checkpoint

LOOKS = (PROMPT_MEAN, PROMPT, 2, 4, END)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


@dataclass
class Seen:
    """An observer that keeps what it is shown and ends the requests named in `ends`."""

    trajectories: dict[tuple[Request, Look], Tensor] = field(default_factory=dict)
    ends: dict[Request, Look] = field(default_factory=dict)

    def __call__(self, look: Look, requests: Sequence[Request], trajectories: Tensor) -> list[bool]:
        for request, trajectory in zip(requests, trajectories, strict=True):
            assert (request, look) not in self.trajectories
            self.trajectories[request, look] = trajectory.clone()
        return [self.ends.get(request) == look for request in requests]


def prompt(n: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, 257, (n,), generator=generator).tolist())


def drain(engine: Engine) -> tuple[dict[Request, list[int]], dict[Request, Finish]]:
    tokens: dict[Request, list[int]] = {}
    finishes: dict[Request, Finish] = {}
    while engine.busy:
        for step in engine.step():
            assert step.request not in finishes
            if step.token is not None:
                tokens.setdefault(step.request, []).append(step.token)
            if step.finish is not None:
                finishes[step.request] = step.finish
    return tokens, finishes


@torch.inference_mode()
def plain_states(checkpoint: Checkpoint, ids: Sequence[int]) -> Tensor:
    """Pre-norm hidden states (L + 1, positions, d) of one uncached pass."""
    last: list[Tensor] = []
    layer = decoder_layers(checkpoint.model)[-1]
    handle = layer.register_forward_hook(lambda m, a, o: last.append(o))
    output = checkpoint.model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    handle.remove()
    return torch.stack([*output.hidden_states[:-1], last[0]])[:, 0]


def plain_greedy(checkpoint: Checkpoint, ids: Sequence[int], max_tokens: int) -> list[int]:
    model: Any = checkpoint.model
    output = model.generate(torch.tensor([ids]), max_new_tokens=max_tokens, do_sample=False)
    return [int(token) for token in output[0, len(ids) :]]


def plain_trajectory(
    checkpoint: Checkpoint, request: Request, response: Sequence[int], look: Look
) -> Tensor:
    if look in PROMPT_LOOKS:
        states = plain_states(checkpoint, request.question or request.prompt)
        return states[:, -1] if look == PROMPT else states.mean(1)
    states = plain_states(checkpoint, (*request.prompt, *response))
    count = len(response) if look == END else look
    start = len(request.prompt) - 1
    return states[:, start : start + count].mean(1)


def assert_equal_to_plain(
    checkpoint: Checkpoint,
    seen: Seen,
    requests: Sequence[Request],
    tokens: dict[Request, list[int]],
) -> None:
    for request in requests:
        if request.response is None:
            assert tokens[request] == plain_greedy(checkpoint, request.prompt, request.max_tokens)
        response = tokens[request] if request.response is None else request.response
        looks = {look for seen_request, look in seen.trajectories if seen_request is request}
        assert looks == {
            look
            for look in LOOKS
            if look in PROMPT_LOOKS or (look == END and response) or 0 < look <= len(response)
        }
        for look in looks:
            expected = plain_trajectory(checkpoint, request, response, look)
            error = (seen.trajectories[request, look] - expected).norm(dim=1)
            assert (error <= 1e-5 * expected.norm(dim=1)).all()


def mixed_requests() -> list[Request]:
    """Short and long prompts, more than the slots; traces; questions judged apart."""
    requests = [
        Request(prompt(length, seed), max_tokens=max_tokens)
        for seed, (length, max_tokens) in enumerate(
            [(3, 9), (40, 1), (17, 12), (100, 5), (9, 20), (150, 8), (1, 3), (25, 6)]
        )
    ]
    requests += [
        Request(prompt(12, 20), response=prompt(7, 21)),
        Request(prompt(90, 22), response=prompt(3, 23)),
        Request(prompt(5, 24), response=()),
        Request(prompt(30, 25), max_tokens=6, question=prompt(8, 26)),
        Request(prompt(120, 27), max_tokens=4, question=prompt(11, 28)),
        Request(prompt(33, 29), response=prompt(6, 30), question=prompt(4, 31)),
        Request(prompt(33, 32), response=(), question=prompt(4, 33)),
    ]
    return requests


@pytest.mark.parametrize(("n_slots", "prefill_tokens"), [(1, 32), (3, 64), (4, 48), (16, 512)])
def test_mixed_batch_equals_plain_transformers(
    checkpoint: Checkpoint, n_slots: int, prefill_tokens: int
) -> None:
    seen = Seen()
    engine = Engine(
        checkpoint,
        looks=LOOKS,
        observer=seen,
        n_slots=n_slots,
        max_length=256,
        prefill_tokens=prefill_tokens,
    )
    requests = mixed_requests()
    for request in requests:
        engine.submit(request)
    tokens, finishes = drain(engine)
    engine.close()
    assert set(finishes) == set(requests)
    assert_equal_to_plain(checkpoint, seen, requests, tokens)


def test_neighbours_that_leave_change_nothing(checkpoint: Checkpoint) -> None:
    seen = Seen()
    engine = Engine(
        checkpoint, looks=LOOKS, observer=seen, n_slots=3, max_length=256, prefill_tokens=48
    )
    leaving = [Request(prompt(20 + 30 * seed, 40 + seed), max_tokens=30) for seed in range(4)]
    staying = mixed_requests()
    seen.ends = {leaving[0]: PROMPT, leaving[1]: 4}
    for pair in zip(leaving, staying, strict=False):
        for request in pair:
            engine.submit(request)
    for request in staying[len(leaving) :]:
        engine.submit(request)
    tokens: dict[Request, list[int]] = {}
    finishes: dict[Request, Finish] = {}
    n_steps = 0
    while engine.busy:
        n_steps += 1
        if n_steps == 4:
            engine.cancel(leaving[2])
            engine.cancel(leaving[3])
        for step in engine.step():
            if step.token is not None:
                tokens.setdefault(step.request, []).append(step.token)
            if step.finish is not None:
                finishes[step.request] = step.finish
    engine.close()
    assert leaving[0] not in tokens
    assert finishes[leaving[0]] == "judged"
    # The look at 4 tokens comes before the fourth is emitted.
    assert len(tokens[leaving[1]]) == 3
    assert finishes[leaving[1]] == "judged"
    assert finishes[leaving[2]] == finishes[leaving[3]] == "cancelled"
    assert_equal_to_plain(checkpoint, seen, staying, tokens)


def test_refused_question_spares_its_long_prompt(checkpoint: Checkpoint) -> None:
    request = Request(prompt(200, 1), max_tokens=4, question=prompt(5, 2))
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

    def seeded() -> Request:
        return Request(prompt(10, 5), max_tokens=12, sampling=sampling, seed=7)

    alone = seeded()
    engine.submit(alone)
    drain(engine)
    batched = seeded()
    for request in [
        Request(prompt(30, 6), max_tokens=20),
        batched,
        Request(prompt(4, 8), max_tokens=3, sampling=sampling, seed=1),
    ]:
        engine.submit(request)
    drain(engine)
    engine.close()
    assert batched.generated == alone.generated
    assert alone.generated != plain_greedy(checkpoint, alone.prompt, 12)


def test_submit_refuses_what_cannot_fit_and_what_must_wait_too_long(
    checkpoint: Checkpoint,
) -> None:
    engine = Engine(checkpoint, max_length=64, max_queue=2)
    with pytest.raises(PromptTooLongError, match="60 tokens and the request 65"):
        engine.submit(Request(prompt(60, 0), max_tokens=5))
    engine.submit(Request(prompt(60, 0), max_tokens=4))
    engine.submit(Request(prompt(3, 0)))
    with pytest.raises(CapacityError, match="2 of 2 places are taken, 1 more"):
        engine.submit(Request(prompt(3, 0)))
    assert engine.capacity().n_waiting == 2
    drain(engine)
    assert engine.capacity().n_waiting == engine.capacity().n_running == 0
    engine.close()


def test_closed_engine_leaves_no_hooks(checkpoint: Checkpoint) -> None:
    layers = decoder_layers(checkpoint.model)

    def n_hooks() -> int:
        return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in layers)

    before = n_hooks()
    engine = Engine(checkpoint, looks=LOOKS, max_length=64)
    assert n_hooks() == before + len(layers) + 1
    engine.close()
    assert n_hooks() == before
