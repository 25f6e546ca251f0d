"""What the model said of drawn tokens: log-probabilities, and the average distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.backend import TokenLogprobs
from detector.engine.run import Run


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


def add_to_totals(logits: Tensor, runs: Sequence[Run]) -> None:
    """Add the distribution of each row of logits (n, vocabulary) to its run's total, where that is
    asked for.
    """
    rows = [row for row, run in enumerate(runs) if run.ask.averaged]
    if not rows:
        return
    for row, probabilities in zip(rows, logits[rows].float().softmax(-1), strict=True):
        run = runs[row]
        run.total = probabilities if run.total is None else run.total + probabilities
