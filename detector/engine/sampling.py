"""Drawing the next token of each request in a batch from its own distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from detector.engine.request import Request
from detector.manifest import Sampling


def processors(sampling: Sampling) -> LogitsProcessorList:
    """Transformers' own warpers, in the order in which `generate` applies them."""
    chain = LogitsProcessorList()
    if sampling.temperature != 1.0:
        chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        chain.append(TopPLogitsWarper(sampling.top_p))
    return chain


def likelihood(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """What each drawn token's distribution says of it, (n, vocabulary) -> float64 (n, 3).

    Columns: minus the log-probability of the token, the largest probability, the entropy;
    logarithms natural, before temperature.
    """
    log_p = logits.float().log_softmax(-1)
    p = log_p.exp()
    chosen = log_p[torch.arange(len(tokens)), list(tokens)]
    return torch.stack([-chosen, p.amax(-1), -(p * log_p).sum(-1)], 1).double().cpu()


def draw(logits: Tensor, requests: Sequence[Request]) -> list[int]:
    """The next token of each request from its row of logits (n, vocabulary).

    A request with a seed draws the same tokens alone or in a batch: its generator is its
    own and lives on the CPU.
    """
    tokens: list[int] = logits.argmax(-1).tolist()
    for row, request in enumerate(requests):
        if request.sampling.temperature == 0.0:
            continue
        if request.processors is None:
            request.processors = processors(request.sampling)
            request.generator = torch.Generator()
            if request.seed is None:
                request.generator.seed()
            else:
                request.generator.manual_seed(request.seed)
        ids = torch.empty((1, 0), dtype=torch.long, device=logits.device)
        # The warpers in use look at scores alone, so the ids they ask for stay empty.
        scores = cast("torch.FloatTensor", logits[row : row + 1].float())
        warped = request.processors(cast("torch.LongTensor", ids), scores)
        probabilities = warped.softmax(-1)[0].cpu()
        tokens[row] = int(torch.multinomial(probabilities, 1, generator=request.generator))
    return tokens
