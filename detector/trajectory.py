"""What a trajectory is, and the arithmetic on it.

A trajectory is a float32 tensor (L + 1, d): one hidden state a layer, layer 0 being the
embedding and layer L the last decoder layer before the final norm. Batches come first:
(n, L + 1, d).

The state that predicts response token t is the hidden state at the position before it,
so the first one is the last prompt position. The running mean over the states of the
first t response tokens is *the* trajectory after t tokens; at t = 1 it is the prompt
trajectory, which exists before any token is generated. A **look** is a t at which the
trajectory is scored, or END: the running mean over the whole response. PROMPT_MEAN is one
more look at the prompt: the mean over all its tokens, which the input-embedding baseline
pools (Ren et al., 2023, arXiv 2209.15558). QUESTION is the mean over the question's own tokens
alone, without those of a template or of earlier turns.

This file knows nothing of models, batches of requests or thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detector.errors import CalibrationError

if TYPE_CHECKING:
    from torch import Tensor

Look = int
PROMPT: Look = 1
END: Look = 0
PROMPT_MEAN: Look = -1
QUESTION: Look = -2
PROMPT_LOOKS = frozenset({PROMPT, PROMPT_MEAN, QUESTION})
_NAMES = {PROMPT: "prompt", END: "end", PROMPT_MEAN: "prompt-mean", QUESTION: "question"}

LAYER_CONVENTION = "predict/pre-norm/float32"
"""Which states are averaged: those that predict the response tokens, before the final
norm, summed in float32. Part of a model's fingerprint."""


def look_name(look: Look) -> str:
    """The look as it is written in artifacts, verdicts and on the command line."""
    return _NAMES.get(look, str(look))


def parse_look(name: str) -> Look:
    """Inverse of `look_name`.

    Raises CalibrationError when `name` is no named look and no count over 1.
    """
    for look, known in _NAMES.items():
        if name == known:
            return look
    if name.isdecimal() and int(name) > 1:
        return int(name)
    raise CalibrationError(
        f"look {name!r} is not a look: write 'prompt', 'question', 'prompt-mean', 'end' or a "
        "number of tokens over 1",
        param="looks",
    )


def stage(look: Look) -> str:
    """What has been seen when the look is taken: "prompt" or "response"."""
    return "prompt" if look in PROMPT_LOOKS else "response"


def in_order(looks: Iterable[Look]) -> list[Look]:
    """Looks in the order in which a generation meets them."""
    return sorted(looks, key=lambda look: (look == END, look))


def looks_due(looks: frozenset[Look], n_tokens: int, finished: bool) -> list[Look]:
    """The looks to take on a response of `n_tokens` > 1 tokens so far."""
    due = [look for look in looks if look == n_tokens > 1]
    if finished and END in looks:
        due.append(END)
    return due


def difference(trajectories: Tensor, order: int) -> Tensor:
    """The forward difference over layers, `order` times (differential smoothing).

    (n, L + 1, d) -> (n, L + 1 - order, d). Written out, plane l of order k is
    sum_i (-1)^(k+i) C(k, i) y_{l+i} (arXiv 2405.14039, differential smoothing; the paper
    prints the index as l+k, under which the sum vanishes, its code uses l+i).
    """
    return trajectories.diff(n=order, dim=-2) if order else trajectories
