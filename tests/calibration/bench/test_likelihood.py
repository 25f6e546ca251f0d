"""Likelihood baselines against plain passes of the model."""

from __future__ import annotations

import pytest
import torch

from calibration.bench.paper import likelihood
from calibration.bench.paper.likelihood import (
    Prompted,
    entropy,
    max_softmax,
    mean_likelihood,
    perplexity,
)
from tests.tiny import tiny_checkpoint

SEQUENCES: list[Prompted] = [((5, 6, 7), (8, 9)), ((3, 4), (5, 6, 7, 1, 2)), ((9,), (4,))]


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [256, 3])
def test_baselines_are_those_of_plain_passes(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One response at a time, unpadded, in float64, whatever is held at once."""
    monkeypatch.setattr(likelihood, "_CHUNK", chunk)
    model = tiny_checkpoint().model
    means = mean_likelihood(model, SEQUENCES)
    for row, (prompt, response) in enumerate(SEQUENCES):
        ids = torch.tensor([[*prompt, *response]])
        p = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double().softmax(-1)
        chosen = p[torch.arange(len(response)), torch.tensor(response)]
        mean = means[row : row + 1]
        assert float(perplexity(mean)) == pytest.approx(
            float(chosen.log().neg().mean().exp()), 1e-4
        )
        assert float(max_softmax(mean)) == pytest.approx(-float(p.amax(-1).mean()), rel=1e-4)
        expected = float(-(p * p.log()).sum(-1).mean())
        assert float(entropy(mean)) == pytest.approx(expected, rel=1e-4)
