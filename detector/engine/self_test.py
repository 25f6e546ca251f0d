"""The start-up self-test: what the engine gives is what the model gives by itself.

Masks, positions, caches and hooks depend on the model's code, on the attention kernels and
on the libraries' versions. A mistake there shows in no error, only in wrong trajectories, so
it is looked for before anything is served or calibrated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detector.engine.collector import decoder_layers
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.request import Request
from detector.errors import SelfTestError, TrajGuardError
from detector.trajectory import END, PROMPT, PROMPT_LOOKS, PROMPT_MEAN, Look, look_name

_TEXT = "Ada packs 12 boxes of 30 pens and gives 7 boxes away. How many pens are left? Think."
_PREFILL_TOKENS = 32

# Relative to a plane's norm. Float32 has been seen to differ by up to 1e-5 between the shapes
# that the engine and a plain pass multiply. Half precision rounds anew in every layer: the
# default model differs by 1.9e-2 in bfloat16 and 2.7e-3 in float16, which has 3 bits more. A
# mask that hides or shows one position too many moves its planes by 0.15 and more.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}

log = logging.getLogger(__name__)


def self_test(checkpoint: Checkpoint) -> None:
    """Generate from some prompts and trace another in the engine, and compare trajectories and
    tokens with plain forward passes: padded, in chunks and batched.

    Raises SelfTestError when they differ by more than rounding, UnsupportedModelError when
    the engine cannot run the model.
    """
    ids = checkpoint.tokenizer.encode(_TEXT, add_special_tokens=False)
    ids = (ids * _PREFILL_TOKENS)[: _PREFILL_TOKENS + 8]
    requests = [
        *(Request(tuple(ids[:length]), max_tokens=6) for length in (9, 13, 18)),
        Request(tuple(ids[9:14]), response=tuple(ids[14:20])),
        Request(tuple(ids), max_tokens=3),
    ]
    try:
        seen = _run(checkpoint, requests)
    except TrajGuardError:
        raise
    except Exception as error:
        raise _failure(checkpoint, f"a step fails ({type(error).__name__})") from error
    worst = max(_compare(checkpoint, request, seen[request]) for request in requests)
    log.info("self-test passed: the engine is within %.1e of plain transformers", worst)


def _run(checkpoint: Checkpoint, requests: Sequence[Request]) -> dict[Request, dict[Look, Tensor]]:
    """Each request's trajectories by look."""
    seen: dict[Request, dict[Look, Tensor]] = {request: {} for request in requests}

    def observer(look: Look, requests: Sequence[Request], trajectories: Tensor) -> list[bool]:
        for request, trajectory in zip(requests, trajectories, strict=True):
            seen[request][look] = trajectory.clone().cpu()
        return [False] * len(requests)

    engine = Engine(
        checkpoint,
        looks=(PROMPT_MEAN, PROMPT, 2, END),
        observer=observer,
        n_slots=4,
        max_length=2 * _PREFILL_TOKENS,
        prefill_tokens=_PREFILL_TOKENS,
    )
    try:
        for request in requests:
            engine.submit(request)
        while engine.busy:
            engine.step()
    finally:
        engine.close()
    return seen


def _compare(checkpoint: Checkpoint, request: Request, seen: Mapping[Look, Tensor]) -> float:
    """The largest relative difference of a plane from a plain pass. Raises SelfTestError."""
    if request.finish == "failed":
        raise _failure(checkpoint, "its states are NaN or infinite")
    tolerance = _TOLERANCE[checkpoint.model.dtype]
    states, logits = plain_pass(checkpoint, request)
    worst = 0.0
    for look, trajectory in seen.items():
        expected = _pooled(states, request, look)
        difference = float(((trajectory - expected).norm(dim=1) / expected.norm(dim=1)).max())
        if not difference <= tolerance:  # which is also so of NaN
            raise _failure(
                checkpoint,
                f"the trajectory at the {look_name(look)} look differs by {difference:.1e} "
                f"(rounding makes up to {tolerance:.0e})",
            )
        worst = max(worst, difference)
    for token, row in zip(request.generated, logits, strict=False):
        # Nearly equal logits may change places.
        if not row.max() - row[token] <= tolerance * (row.max() - row.min()):
            raise _failure(checkpoint, "a greedy token is another one")
    return worst


@torch.inference_mode()
def plain_pass(checkpoint: Checkpoint, request: Request) -> tuple[Tensor, Tensor]:
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
    ids = (*request.prompt, *(request.response or request.generated))
    try:
        logits = model(torch.tensor([ids], device=model.device), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(planes).cpu(), logits[0, len(request.prompt) - 1 :].float().cpu()


def _pooled(states: Tensor, request: Request, look: Look) -> Tensor:
    last = len(request.prompt) - 1
    if look in PROMPT_LOOKS:
        return states[:, last] if look == PROMPT else states[:, : last + 1].mean(1)
    n_tokens = len(request.response or request.generated) if look == END else look
    return states[:, last : last + n_tokens].mean(1)


def _failure(checkpoint: Checkpoint, what: str) -> SelfTestError:
    dtype = str(checkpoint.model.dtype).removeprefix("torch.")
    return SelfTestError(
        f"the engine does not reproduce model {checkpoint.name!r} in {dtype}: {what}. Serve it "
        "in float32 or with another attention implementation, or serve another model",
        param="model",
    )
