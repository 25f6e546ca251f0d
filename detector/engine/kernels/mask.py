"""Which positions each query attends to, in the form that the model takes."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

FULL = "full_attention"
SLIDING = "sliding_attention"

Mask = Tensor | dict[str, Tensor]
"""What the model takes as `attention_mask`: a tensor, or one for each kind of layer."""


def layer_kinds(config: PreTrainedConfig) -> set[str]:
    """The kinds of layer that a decoder has, by transformers' names."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return set(kinds)
    if getattr(config, "sliding_window", None) is not None:
        return {SLIDING}
    if getattr(config, "attention_chunk_size", None) is not None:
        return {"chunked_attention"}
    return {FULL}


class CausalMask:
    """Causal masks for a decoder of full and sliding-window layers, to be added to its scores.

    A sliding layer sees the newest `sliding_window` positions, the query's own included.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config()
        self._kinds = layer_kinds(config)
        self._window = config.sliding_window if SLIDING in self._kinds else 0
        self._dtype = model.dtype

    def __call__(self, queries: Tensor, keys: Tensor) -> Mask:
        """What queries at positions (n, q) see of keys at positions (k,); masks (n, 1, q, k)."""
        causal = keys <= queries[..., None]
        if SLIDING not in self._kinds:
            return self._form(causal)
        sliding = self._form(causal & (keys > queries[..., None] - self._window))
        return sliding if FULL not in self._kinds else {FULL: self._form(causal), SLIDING: sliding}

    def _form(self, seen: Tensor) -> Tensor:
        hidden = torch.finfo(self._dtype).min
        return torch.zeros_like(seen, dtype=self._dtype).masked_fill_(~seen, hidden)[:, None]
