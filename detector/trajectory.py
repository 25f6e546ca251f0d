"""What a trajectory is, and the arithmetic on it.

A trajectory is a float32 tensor (L + 1, d): one hidden state a layer, layer 0 being the
embedding and layer L the last decoder layer before the final norm. Batches come first:
(n, L + 1, d).

The state that predicts response token t is the hidden state at the position before it,
so the first one is the last prompt position. The running mean over the states of the
first t response tokens is *the* trajectory after t tokens; at t = 1 it is the prompt
trajectory, which exists before any token is generated. A **look** is a t at which the
trajectory is scored, or END: the running mean over the whole response. A **patch** is a look at
some of the tokens alone: the mean over the states that predict tokens first..last, taken when
there are `last` of them. PROMPT_MEAN is one more look at the prompt: the mean over all its
tokens, which the input-embedding baseline pools (Ren et al., 2023, arXiv 2209.15558). QUESTION is
the mean over the question's own tokens alone, without those of a template or of earlier turns.

The patch is that of patch-level training (arXiv 2407.12665), where the mean of K consecutive token
embeddings stands for K tokens; here it is the mean of K consecutive states, layer by layer.

This file knows nothing of models, batches of requests or thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detector.errors import CalibrationError

if TYPE_CHECKING:
    from torch import Tensor

Look = int
"""A number of tokens; one of the names below; or, from 2^20 on, a patch, see `patch`."""
PROMPT: Look = 1
END: Look = 0
PROMPT_MEAN: Look = -1
QUESTION: Look = -2
PROMPT_LOOKS = frozenset({PROMPT, PROMPT_MEAN, QUESTION})
_NAMES = {PROMPT: "prompt", END: "end", PROMPT_MEAN: "prompt-mean", QUESTION: "question"}

LAYER_CONVENTION = "predict/pre-norm/float32"
"""Which states are averaged: those that predict the response tokens, before the final
norm, summed in float32. Part of a model's fingerprint."""


_PATCH_BITS = 20
_MOST_DIGITS = 6


def patch(first: int, last: int) -> Look:
    """The look at response tokens first..last, counted from 1; from the first on it is the
    running mean.
    """
    return (first - 1 << _PATCH_BITS) + last


def taken_at(look: Look) -> int:
    """How many tokens of the response there are when a look is taken; 0 at the prompt, where its
    first state is, and of one at the end, which has no such number.
    """
    return 0 if look <= PROMPT else look % (1 << _PATCH_BITS)


def left_out(look: Look) -> int:
    """How many tokens of the response's beginning a look does not see: those before its patch."""
    return max(0, look >> _PATCH_BITS)


def look_name(look: Look) -> str:
    """The look as it is written in artifacts, verdicts and on the command line."""
    if look in _NAMES:
        return _NAMES[look]
    before, n_tokens = left_out(look), taken_at(look)
    return f"{before + 1}-{n_tokens}" if before else str(n_tokens)


def parse_look(name: str) -> Look:
    """Inverse of `look_name`.

    Raises CalibrationError when `name` is no named look, no count over 1 and no patch.
    """
    for look, known in _NAMES.items():
        if name == known:
            return look
    first, dash, last = name.partition("-")
    if _count(first) > 1 and not dash:
        return _count(first)
    if 1 < _count(first) <= _count(last):
        return patch(_count(first), _count(last))
    raise CalibrationError(
        f"look {name!r} is not a look: write 'prompt', 'question', 'prompt-mean', 'end', a "
        "number of tokens over 1, or the first and last token of a patch, such as 9-16",
        param="looks",
    )


def patches(name: str) -> list[Look]:
    """The looks that a name stands for: those at all patches of "1-64/8", of 8 tokens each, or
    the one look that it names. Raises CalibrationError as `parse_look` does.
    """
    tokens, slash, size = name.partition("/")
    if not slash:
        return [parse_look(name)]
    first, last = map(_count, tokens.split("-")) if tokens.count("-") == 1 else (0, 0)
    step = _count(size)
    looks = []
    if first and step:
        looks = [patch(n, n + step - 1) for n in range(first, last - step + 2, step)]
    if not looks or looks[0] == PROMPT:
        raise CalibrationError(
            f"look {name!r} has no patch of more tokens than one: write FIRST-LAST/SIZE, such as "
            "1-64/8",
            param="looks",
        )
    return looks


def _count(text: str) -> int:
    """The number that a text writes, or 0 if it writes none that there are bits for."""
    plain = text.isascii() and text.isdecimal() and text[0] != "0" and len(text) <= _MOST_DIGITS
    return int(text) if plain else 0


def stage(look: Look) -> str:
    """What has been seen when the look is taken: "prompt" or "response"."""
    return "prompt" if look in PROMPT_LOOKS else "response"


def in_order(looks: Iterable[Look]) -> list[Look]:
    """Looks in the order in which a generation meets them."""
    return sorted(looks, key=lambda look: (look == END, taken_at(look), look))


def difference(trajectories: Tensor, order: int) -> Tensor:
    """The forward difference over layers, `order` times (differential smoothing).

    (n, L + 1, d) -> (n, L + 1 - order, d). Written out, plane l of order k is
    sum_i (-1)^(k+i) C(k, i) y_{l+i} (arXiv 2405.14039, differential smoothing; the paper
    prints the index as l+k, under which the sum vanishes, its code uses l+i).
    """
    return trajectories.diff(n=order, dim=-2) if order else trajectories
