"""The start-up self-test: what the engine gives is what the model gives by itself.

Masks, positions, caches and hooks depend on the model's code, on the attention kernels and
on the libraries' versions. A mistake there shows in no error, only in wrong trajectories, so
it is looked for before anything is served or calibrated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detector.backend import Ask, Backend, Finish, Observer, RenderedQuestion
from detector.engine.collector import decoder_layers
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.errors import SelfTestError, TrajGuardError
from detector.trajectory import (
    END,
    PROMPT,
    PROMPT_LOOKS,
    PROMPT_MEAN,
    QUESTION,
    Look,
    left_out,
    look_name,
    patch,
    taken_at,
)

_TEXT = "Ada packs 12 boxes of 30 pens and gives 7 boxes away. How many pens are left? Think."
_PREFILL_TOKENS = 32

# Relative to a plane's norm. Float32 has been seen to differ by up to 1e-5 between the shapes
# that the engine and a plain pass multiply. Half precision rounds anew in every layer: the
# default model differs by 1.9e-2 in bfloat16 and 2.7e-3 in float16, which has 3 bits more. A
# mask that hides or shows one position too many moves its planes by 0.15 and more.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}

Opened = Callable[[Collection[Look], Observer], AbstractContextManager[Backend]]
"""Opens what is tested, shown to this observer at these looks."""

log = logging.getLogger(__name__)


@dataclass
class _Seen:
    """What the engine made of one ask: trajectories by look, tokens, and how it ended."""

    ask: Ask
    trajectories: dict[Look, Tensor] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def response(self) -> tuple[int, ...]:
        return self.ask.response or tuple(self.tokens)


def self_test(checkpoint: Checkpoint, opened: Opened | None = None) -> None:
    """Generate from some prompts and trace another in the engine, and compare trajectories and
    tokens with plain forward passes: padded, in chunks and batched. `opened` is for another engine
    of the same model than this package's.

    Raises SelfTestError when they differ by more than rounding, UnsupportedModelError when
    the engine cannot run the model.
    """
    ids = checkpoint.tokenizer.encode(_TEXT, add_special_tokens=False)
    ids = (ids * _PREFILL_TOKENS)[: _PREFILL_TOKENS + 8]
    asks = [
        *(Ask(tuple(ids[:length]), max_tokens=6) for length in (9, 13, 18)),
        Ask(tuple(ids[9:14]), response=tuple(ids[14:20])),
        Ask(tuple(ids), max_tokens=3, question=RenderedQuestion(tuple(ids), (5, len(ids) - 3))),
    ]
    try:
        seen = _run(opened or _engine_of(checkpoint), asks)
    except TrajGuardError:
        raise
    except Exception as error:
        raise _failure(checkpoint, f"a step fails ({type(error).__name__})") from error
    worst = max(_compare(checkpoint, each) for each in seen)
    log.info("self-test passed: the engine is within %.1e of plain transformers", worst)


def _engine_of(checkpoint: Checkpoint) -> Opened:
    @contextmanager
    def opened(looks: Collection[Look], observer: Observer) -> Iterator[Backend]:
        engine = Engine(
            checkpoint,
            looks=looks,
            observer=observer,
            n_slots=4,
            max_length=2 * _PREFILL_TOKENS,
            prefill_tokens=_PREFILL_TOKENS,
        )
        try:
            yield engine
        finally:
            engine.close()

    return opened


def _run(opened: Opened, asks: Sequence[Ask]) -> list[_Seen]:
    seen = {ask: _Seen(ask) for ask in asks}

    def observer(look: Look, asks: Sequence[Ask], trajectories: Tensor) -> list[bool]:
        for ask, trajectory in zip(asks, trajectories, strict=True):
            seen[ask].trajectories[look] = trajectory.clone().cpu()
        return [False] * len(asks)

    with opened((QUESTION, PROMPT_MEAN, PROMPT, 2, patch(3, 5), END), observer) as backend:
        for ask in asks:
            backend.submit(ask)
        while backend.busy:
            for step in backend.step():
                if step.token is not None:
                    seen[step.ask].tokens.append(step.token)
                seen[step.ask].finish = step.finish
    return list(seen.values())


def _compare(checkpoint: Checkpoint, seen: _Seen) -> float:
    """The largest relative difference of a plane from a plain pass. Raises SelfTestError."""
    if seen.finish == "failed":
        raise _failure(checkpoint, "its states are NaN or infinite")
    tolerance = _TOLERANCE[checkpoint.model.dtype]
    states, logits = plain_pass(checkpoint, seen.ask.prompt, seen.response)
    worst = 0.0
    for look, trajectory in seen.trajectories.items():
        expected = _pooled(states, seen.ask, len(seen.response), look)
        difference = float(((trajectory - expected).norm(dim=1) / expected.norm(dim=1)).max())
        if not difference <= tolerance:  # which is also so of NaN
            raise _failure(
                checkpoint,
                f"the trajectory at the {look_name(look)} look differs by {difference:.1e} "
                f"(rounding makes up to {tolerance:.0e})",
            )
        worst = max(worst, difference)
    for token, row in zip(seen.tokens, logits, strict=False):
        # Nearly equal logits may change places.
        if not row.max() - row[token] <= tolerance * (row.max() - row.min()):
            raise _failure(checkpoint, "a greedy token is another one")
    return worst


@torch.inference_mode()
def plain_pass(
    checkpoint: Checkpoint, prompt: tuple[int, ...], response: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """One pass over prompt and response, without cache, mask or batch.

    Returns the input of the first layer and every layer's output, float32 (L + 1, positions,
    d), and the logits that predict the response.
    """
    model = checkpoint.model
    layers = decoder_layers(model)
    planes: list[Tensor] = []

    def keep_input(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        planes.append((args[0] if args else kwargs["hidden_states"])[0].float())

    def keep_output(module: Any, args: Any, output: Any) -> None:
        planes.append((output[0] if isinstance(output, tuple) else output)[0].float())

    handles = [layers[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
    handles += [layer.register_forward_hook(keep_output) for layer in layers]
    ids = (*prompt, *response)
    try:
        logits = model(torch.tensor([ids], device=model.device), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(planes).cpu(), logits[0, len(prompt) - 1 :].float().cpu()


def _pooled(states: Tensor, ask: Ask, n_response: int, look: Look) -> Tensor:
    last = len(ask.prompt) - 1
    if look == QUESTION and ask.question is not None:
        return states[:, slice(*ask.question.span)].mean(1)
    if look in PROMPT_LOOKS:
        return states[:, last] if look == PROMPT else states[:, : last + 1].mean(1)
    n_tokens = n_response if look == END else taken_at(look)
    return states[:, last + left_out(look) : last + n_tokens].mean(1)


def _failure(checkpoint: Checkpoint, what: str) -> SelfTestError:
    dtype = str(checkpoint.model.dtype).removeprefix("torch.")
    return SelfTestError(
        f"the engine does not reproduce model {checkpoint.name!r} in {dtype}: {what}. Serve it "
        "in float32 or with another attention implementation, or serve another model",
        param="model",
    )
