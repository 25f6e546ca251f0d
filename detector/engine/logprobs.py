"""Log-probabilities of drawn tokens and of those that were most likely."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.backend import TokenLogprobs


def token_logprobs(
    logits: Tensor, tokens: Sequence[int], n_top: Sequence[int | None]
) -> list[TokenLogprobs | None]:
    """Of each row of logits (n, vocabulary) and its token, with the `n_top` most likely.

    None where `n_top` is None; those rows cost nothing.
    """
    rows = [row for row, n in enumerate(n_top) if n is not None]
    result: list[TokenLogprobs | None] = [None] * len(tokens)
    if not rows:
        return result
    log_p = logits[rows].float().log_softmax(-1)
    drawn = log_p[torch.arange(len(rows)), [tokens[row] for row in rows]].tolist()
    most = min(max(n_top[row] or 0 for row in rows), log_p.shape[-1])
    values, ids = log_p.topk(most)
    for row, logprob, top_ids, top in zip(rows, drawn, ids.tolist(), values.tolist(), strict=True):
        likely = list(zip(top_ids, top, strict=True))[: n_top[row]]
        result[row] = TokenLogprobs(tokens[row], logprob, tuple(likely))
    return result
