"""What a trajectory is, and the arithmetic on it.

A trajectory is a float32 tensor (L + 1, d): one hidden state a layer, layer 0 being the
embedding and layer L the last decoder layer before the final norm. Batches come first:
(n, L + 1, d).

The state that predicts response token t is the hidden state at the position before it,
so the first one is the last prompt position. The running mean over the states of the
first t response tokens is *the* trajectory after t tokens; at t = 1 it is the prompt
trajectory, which exists before any token is generated. A **look** is a t at which the
trajectory is scored, or END: the running mean over the whole response.

This file knows nothing of models, batches of requests or thresholds.
"""

from torch import Tensor

from detector.errors import CalibrationError

Look = int
PROMPT: Look = 1
END: Look = 0

LAYER_CONVENTION = "predict/pre-norm/float32"
"""Which states are averaged: those that predict the response tokens, before the final
norm, summed in float32. Part of a model's fingerprint."""


def look_name(look: Look) -> str:
    """The look as it is written in artifacts, verdicts and on the command line."""
    return {PROMPT: "prompt", END: "end"}.get(look, str(look))


def parse_look(name: str) -> Look:
    """Inverse of `look_name`.

    Raises CalibrationError when `name` is none of "prompt", "end" and a count over 1.
    """
    if name in ("prompt", "end"):
        return PROMPT if name == "prompt" else END
    if name.isdecimal() and int(name) > 1:
        return int(name)
    raise CalibrationError(
        f"look {name!r} is not a look: write 'prompt', 'end' or a number of tokens over 1",
        param="looks",
    )


def stage(look: Look) -> str:
    """What has been seen when the look is taken: "prompt" or "response"."""
    return "prompt" if look == PROMPT else "response"


def looks_due(looks: frozenset[Look], n_tokens: int, finished: bool) -> list[Look]:
    """The looks to take on a response of `n_tokens` tokens so far."""
    due = [look for look in looks if look == n_tokens]
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
