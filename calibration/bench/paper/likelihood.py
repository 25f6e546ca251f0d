"""Likelihood baselines: what a model's own next-token distributions say of a response.

Higher = more OOD throughout. They come from a teacher-forced pass over the question and the
response collected, so the engine that serves need not keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Prompted = tuple[Sequence[int], Sequence[int]]
"""A prompt's tokens and its response's."""

_CHUNK = 256
"""Positions whose distributions over the vocabulary are held at once."""


def likelihood(logits: Tensor, tokens: Tensor) -> Tensor:
    """What each token's distribution says of it, (n, vocabulary) and (n,) -> float64 (n, 3).

    Columns: minus the log-probability of the token, the largest probability, the entropy;
    logarithms natural, before temperature.
    """
    log_p = logits.float().log_softmax(-1)
    p = log_p.exp()
    chosen = log_p.gather(1, tokens[:, None])[:, 0]
    return torch.stack([-chosen, p.amax(-1), -(p * log_p).sum(-1)], 1).double()


def mean_likelihood(model: Any, sequences: Sequence[Prompted]) -> Tensor:
    """The columns of `likelihood`, means over each response's tokens: float64 (n, 3)."""
    n = max(len(prompt) + len(response) for prompt, response in sequences)
    ids = torch.zeros(len(sequences), n, dtype=torch.long)
    mask = torch.zeros_like(ids)
    rows: list[int] = []
    positions: list[int] = []
    for row, (prompt, response) in enumerate(sequences):
        length = len(prompt) + len(response)
        ids[row, :length] = torch.tensor([*prompt, *response])
        mask[row, :length] = 1
        rows += [row] * len(response)
        positions += range(len(prompt) - 1, length - 1)
    device = model.device
    ids = ids.to(device)
    hidden = model.get_decoder()(input_ids=ids, attention_mask=mask.to(device))[0]
    row, position = torch.tensor([rows, positions], device=device)
    states, tokens = hidden[row, position].split(_CHUNK), ids[row, position + 1].split(_CHUNK)
    head = model.get_output_embeddings()
    found = torch.cat([likelihood(head(s), t) for s, t in zip(states, tokens, strict=True)])
    sums = torch.zeros(len(sequences), 3, dtype=torch.float64).index_add_(0, row.cpu(), found.cpu())
    return sums / torch.tensor([[len(response)] for _, response in sequences])


def perplexity(means: Tensor) -> Tensor:
    """Perplexity of responses, exp of the mean negative log-probability: (n, 3) -> (n,).

    `means` is what `mean_likelihood` gives. A baseline in arXiv 2405.14039, after Ren et al.
    (2023), arXiv 2209.15558.
    """
    return means[:, 0].exp()


def max_softmax(means: Tensor) -> Tensor:
    """Minus the mean largest softmax probability, (n, 3) -> (n,).

    Hendrycks and Gimpel (2017), arXiv 1610.02136, averaged over a response's tokens.
    """
    return -means[:, 1]


def entropy(means: Tensor) -> Tensor:
    """Mean entropy of the next-token distributions, nats, (n, 3) -> (n,)."""
    return means[:, 2]
