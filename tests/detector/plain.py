"""Plain transformers as the reference: what a request gets alone, and how to compare."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from detector.backend import Ask, Finish, RenderedQuestion
from detector.engine.collector import decoder_layers
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.trajectory import (
    END,
    PROMPT,
    PROMPT_LOOKS,
    PROMPT_MEAN,
    QUESTION,
    Look,
    left_out,
    patch,
    taken_at,
)

LOOKS = (QUESTION, PROMPT_MEAN, PROMPT, 2, 4, patch(2, 3), patch(3, 4), patch(4, 8), END)
"""Some patches follow each other, others overlap, and one begins after the prompt's state."""


@dataclass
class Seen:
    """An observer that keeps what it is shown and ends the requests named in `ends`."""

    trajectories: dict[tuple[Ask, Look], Tensor] = field(default_factory=dict)
    ends: dict[Ask, Look] = field(default_factory=dict)

    def __call__(self, look: Look, requests: Sequence[Ask], trajectories: Tensor) -> list[bool]:
        for request, trajectory in zip(requests, trajectories, strict=True):
            assert (request, look) not in self.trajectories
            self.trajectories[request, look] = trajectory.clone()
        return [self.ends.get(request) == look for request in requests]


def prompt(n: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, 257, (n,), generator=generator).tolist())


def question(n: int, seed: int, span: tuple[int, int] | None = None) -> RenderedQuestion:
    return RenderedQuestion(prompt(n, seed), span or (n // 3, n))


def drain(engine: Engine) -> tuple[dict[Ask, list[int]], dict[Ask, Finish]]:
    tokens: dict[Ask, list[int]] = defaultdict(list)
    finishes: dict[Ask, Finish] = {}
    while engine.busy:
        for step in engine.step():
            assert step.ask not in finishes
            if step.token is not None:
                tokens[step.ask].append(step.token)
            if step.finish is not None:
                finishes[step.ask] = step.finish
    return tokens, finishes


@torch.inference_mode()
def plain_states(checkpoint: Checkpoint, ids: Sequence[int]) -> Tensor:
    """Pre-norm hidden states (L + 1, positions, d) of one uncached pass."""
    layers = decoder_layers(checkpoint.model)
    planes: list[Tensor] = []

    def keep_input(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        planes.append(args[0] if args else kwargs["hidden_states"])

    def keep_output(module: Any, args: Any, output: Any) -> None:
        planes.append(output[0] if isinstance(output, tuple) else output)

    handles = [layers[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
    handles += [layer.register_forward_hook(keep_output) for layer in layers]
    checkpoint.model(torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(planes)[:, 0]


def plain_greedy(checkpoint: Checkpoint, ids: Sequence[int], max_tokens: int) -> list[int]:
    model: Any = checkpoint.model
    output = model.generate(torch.tensor([ids]), max_new_tokens=max_tokens, do_sample=False)
    return [int(token) for token in output[0, len(ids) :]]


class Plain:
    """What a checkpoint gives by itself. Each sequence is run once, however often asked for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.greedy = cache(partial(plain_greedy, checkpoint))
        self._states = cache(partial(plain_states, checkpoint))

    def trajectory(self, request: Ask, response: tuple[int, ...], look: Look) -> Tensor:
        if look in PROMPT_LOOKS:
            question = request.question
            states = self._states(request.prompt if question is None else question.tokens)
            if question is not None and look == QUESTION:
                states = states[:, slice(*question.span)]
            return states[:, -1] if look == PROMPT else states.mean(1)
        states = self._states((*request.prompt, *response))
        count = len(response) if look == END else taken_at(look)
        start = len(request.prompt) - 1
        return states[:, start + left_out(look) : start + count].mean(1)


def assert_equal_to_plain(
    plain: Plain,
    seen: Seen,
    requests: Sequence[Ask],
    tokens: dict[Ask, list[int]],
) -> None:
    for request in requests:
        if request.response is None:
            assert tokens[request] == plain.greedy(request.prompt, request.max_tokens)
        response = request.response if request.response is not None else tuple(tokens[request])
        looks = {look for seen_request, look in seen.trajectories if seen_request is request}
        assert looks == {
            look
            for look in LOOKS
            if look in PROMPT_LOOKS
            or (look == END and response)
            or 0 < taken_at(look) <= len(response)
        }
        for look in looks:
            expected = plain.trajectory(request, response, look)
            error = (seen.trajectories[request, look] - expected).norm(dim=1)
            assert (error <= 1e-5 * expected.norm(dim=1)).all()


def mixed_requests() -> list[Ask]:
    """Short and long prompts, more than the slots; traces; questions judged apart; every second
    request judged ahead where it waits for a slot.
    """
    requests = [
        Ask(prompt(length, seed), max_tokens=max_tokens)
        for seed, (length, max_tokens) in enumerate(
            [(3, 9), (40, 1), (17, 12), (100, 5), (9, 20), (150, 8), (1, 3), (25, 6)]
        )
    ]
    requests += [
        Ask(prompt(12, 20), response=prompt(7, 21)),
        Ask(prompt(90, 22), response=prompt(3, 23)),
        Ask(prompt(5, 24), response=()),
        Ask(prompt(30, 25), max_tokens=6, question=question(8, 26)),
        Ask(prompt(120, 27), max_tokens=4, question=question(11, 28)),
        Ask(prompt(33, 29), response=prompt(6, 30), question=question(4, 31)),
        Ask(prompt(33, 32), response=(), question=question(4, 33)),
        # Judged in the prompt's own sequence: whole, in chunks, in one of them alone, traced.
        Ask(prompt(34, 34), max_tokens=3, question=question(34, 34, (5, 30))),
        Ask(prompt(130, 35), max_tokens=3, question=question(130, 35, (7, 126))),
        Ask(prompt(110, 36), max_tokens=3, question=question(110, 36, (60, 63))),
        Ask(prompt(21, 37), response=prompt(5, 38), question=question(21, 37, (20, 21))),
        # Long questions judged apart, and a long trace, in chunks.
        Ask(prompt(20, 39), max_tokens=3, question=question(140, 40, (9, 133))),
        Ask(prompt(150, 41), max_tokens=3, question=question(140, 42, (100, 140))),
        Ask(prompt(33, 43), response=prompt(90, 44), question=question(120, 45)),
    ]
    return [replace(each, refusable=n % 2 == 0) for n, each in enumerate(requests)]


def assert_mixed_batch_equals_plain(
    checkpoint: Checkpoint, shapes: Sequence[tuple[int, int]]
) -> None:
    """Run the mixed requests, all at once, through an engine of each number of slots and of
    tokens to prefill.
    """
    plain = Plain(checkpoint)
    for n_slots, prefill_tokens in shapes:
        seen = Seen()
        engine = Engine(
            checkpoint,
            looks=LOOKS,
            observer=seen,
            n_slots=n_slots,
            max_length=256,
            prefill_tokens=prefill_tokens,
        )
        assert engine.capacity().n_slots == n_slots
        requests = mixed_requests()
        for request in requests:
            engine.submit(request)
        tokens, finishes = drain(engine)
        engine.close()
        assert set(finishes) == set(requests)
        assert_equal_to_plain(plain, seen, requests, tokens)
