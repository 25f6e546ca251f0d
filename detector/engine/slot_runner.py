"""Forward passes over dense cache slots: many requests at once.

Runs a decoder of full-attention and sliding-window layers that takes its masks, positions
and cache from the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from detector.engine import attention
from detector.engine.cache import KeySizes, SlotCache
from detector.engine.collector import Collector
from detector.engine.mask import FULL, SLIDING, CausalMask, layer_kinds
from detector.engine.prefill import Row

_LENGTH_BUCKET = 64
"""Slots are laid out for a multiple of this many positions, so that shapes repeat."""


class SlotRunner:
    """See `runner.Runner`."""

    alone = False

    def __init__(
        self,
        model: PreTrainedModel,
        collector: Collector,
        sizes: KeySizes,
        n_slots: int,
        max_length: int,
        prefill_tokens: int,
    ) -> None:
        self.n_slots = n_slots
        self.prefill_tokens = prefill_tokens
        self._model = model
        self._collector = collector
        self._mask = CausalMask(model)
        self._cache = SlotCache(sizes.layers, n_slots, max_length)
        self.slot_bytes: int | None = self._cache.nbytes // (n_slots + 1)
        self._positions = torch.arange(max_length, device=model.device)

    def prefill(
        self, rows: Sequence[Row], starting: Sequence[int], first_slot: int
    ) -> tuple[Tensor, Tensor]:
        """Under the causal mask no position sees the padding after it, and padded keys
        are overwritten by decode before its mask lets them be seen.
        """
        device = self._positions.device
        n = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + (0,) * (n - len(row.ids)) for row in rows])
        kept = torch.tensor(starting, dtype=torch.long, device=device)
        if starting:
            self._make_room(first_slot, n)
        self._cache.prompts(kept, first_slot + torch.arange(len(kept), device=device))
        means = self._collector.prefill([row.spans for row in rows], n)
        ends = [len(rows[index].ids) - 1 for index in starting]
        wanted = sorted(set(ends)) or [0]
        positions = self._positions[:n]
        logits = self._forward(
            ids.to(device),
            positions.expand(len(rows), n),
            positions[None],
            positions,
            logits_to_keep=torch.tensor(wanted, device=device),
        )
        return means, logits[kept, [wanted.index(end) for end in ends]]

    def prefill_chunk(self, ids: Sequence[int], start: int) -> tuple[Tensor, Tensor]:
        n, stop = len(ids), start + len(ids)
        self._cache.chunk(start)
        means = self._collector.prefill([[(n - 1, n), (0, n)]], n)
        positions = self._positions[None, start:stop]
        logits = self._forward(
            torch.tensor([ids], device=positions.device),
            positions,
            positions,
            self._positions[:stop],
            logits_to_keep=1,
        )
        return means, logits[:, -1]

    def unstage(self, slot: int, length: int) -> None:
        self._make_room(slot, length)
        self._cache.unstage(slot, length)

    def decode(self, tokens: Sequence[int], positions: Sequence[int], collect: bool) -> Tensor:
        n, device = len(tokens), self._positions.device
        self._cache.resize(n, self._bucket(max(positions) + 1))
        at = torch.tensor(positions, device=device)
        self._cache.decode(self._positions[:n], at)
        self._collector.decode(n if collect else 0)
        return self._forward(
            torch.tensor(tokens, device=device)[:, None],
            at[:, None],
            at[:, None],
            self._positions[: self._cache.length],
            logits_to_keep=1,
        )[:, -1]

    def move(self, source: int, target: int, length: int) -> None:
        self._cache.move(source, target, length)

    def clear(self, slot: int) -> None:
        self._cache.clear(slot)

    def reset(self) -> None:
        self._cache.reset()

    def _make_room(self, n_running: int, length: int) -> None:
        """For a request of `length` positions beside those that run."""
        longest = self._cache.length if n_running else 0
        self._cache.resize(n_running, max(longest, self._bucket(length)))

    def _bucket(self, length: int) -> int:
        return min(len(self._positions), -(-length // _LENGTH_BUCKET) * _LENGTH_BUCKET)

    def _forward(
        self,
        ids: Tensor,
        positions: Tensor,
        queries: Tensor,
        keys: Tensor,
        logits_to_keep: Tensor | int,
    ) -> Tensor:
        logits: Tensor = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self._mask(queries, keys),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
        ).logits
        return logits


def why_not_in_slots(model: PreTrainedModel) -> str | None:
    """What, of all that a model says of itself, keeps it from running in slots."""
    config = model.config.get_text_config()
    kinds = layer_kinds(config) - {FULL, SLIDING}
    implementation = getattr(config, "_attn_implementation", None)
    if kinds or getattr(model, "_is_stateful", False):
        return f"it has layers of kind {', '.join(sorted(kinds)) or 'recurrent'}"
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention makes its masks itself"
    if implementation not in ("sdpa", "eager", attention.NAME):
        return f"its attention implementation {implementation!r} takes no mask"
    return None


@torch.inference_mode()
def key_sizes(model: PreTrainedModel) -> KeySizes:
    """One forward pass of one token, as the runner makes it."""
    sizes = KeySizes()
    zero = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    model(
        input_ids=zero,
        position_ids=zero,
        attention_mask=CausalMask(model)(zero, zero[0]),
        past_key_values=sizes,
        use_cache=True,
        logits_to_keep=1,
    )
    return sizes
