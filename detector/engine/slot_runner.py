"""Forward passes over dense cache slots: many requests at once.

Runs a decoder of full-attention and sliding-window layers that takes its masks, positions
and cache from the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from detector.engine.collector import Collector
from detector.engine.kernels import attention
from detector.engine.kernels.cache import Keys, KeySizes, SlotCache
from detector.engine.kernels.graphs import Record, Step
from detector.engine.kernels.mask import FULL, SLIDING, CausalMask, layer_kinds
from detector.engine.kernels.transfer import to_device
from detector.engine.prefill import Row

_LENGTH_BUCKET = 64
_LENGTH_BUCKET_RECORDED = 256
"""Slots are laid out for a multiple of this many positions, so that shapes repeat."""

log = logging.getLogger(__name__)


class SlotRunner:
    """See `runner.Runner`.

    With a recorder, decode steps are recorded once for each power of two of requests and each
    length of slots, and replayed: rows that no request fills compute in slots that are free.
    """

    alone = False

    def __init__(
        self,
        model: PreTrainedModel,
        collector: Collector,
        sizes: KeySizes,
        n_slots: int,
        max_length: int,
        prefill_tokens: int,
        record: Record | None = None,
    ) -> None:
        self.n_slots = n_slots
        self.prefill_tokens = prefill_tokens
        self._model = model
        self._collector = collector
        self._mask = CausalMask(model)
        self._cache = SlotCache(sizes.layers, n_slots, max_length)
        self.slot_bytes: int | None = self._cache.nbytes // (n_slots + 1)
        self._slots = torch.arange(n_slots, device=model.device)
        self._positions = torch.arange(max_length, device=model.device)
        # What a decode step reads: the tokens, and their positions.
        self._inputs = torch.zeros(2, n_slots, 1, dtype=torch.long, device=model.device)
        # What the chunks so far of a staged row add to the means over its spans.
        self._staged_means = torch.zeros(())
        self._record = record
        self._recorded: dict[tuple[int, int, bool], Step] = {}

    def prefill(
        self,
        rows: Sequence[Row],
        starting: Sequence[int],
        first_slot: int,
        kept: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor, list[Keys]]:
        """Under the causal mask no position sees the padding after it, and padded keys
        are overwritten by decode before its mask lets them be seen.
        """
        device = self._positions.device
        n = max(len(row.ids) for row in rows)
        ids = to_device([row.ids + (0,) * (n - len(row.ids)) for row in rows], device)
        started = to_device(torch.tensor(starting, dtype=torch.long), device)
        if starting:
            self._make_room(first_slot, n)
        slots = self._slots[first_slot : first_slot + len(starting)]
        keys = self._cache.prompts(started, slots, {index: len(rows[index].ids) for index in kept})
        means = self._collector.prefill([row.spans for row in rows], n)
        going_on = [*starting, *kept]
        ends = [len(rows[index].ids) - 1 for index in going_on]
        wanted = sorted(set(ends)) or [0]
        positions = self._positions[:n]
        logits = self._forward(
            ids,
            positions.expand(len(rows), n),
            positions[None],
            positions,
            logits_to_keep=to_device(wanted, device),
        )
        last = torch.tensor([wanted.index(end) for end in ends], dtype=torch.long)
        picked = to_device(torch.tensor(going_on, dtype=torch.long), device)
        return means, logits[picked, to_device(last, device)], list(keys.values())

    def restore(self, slot: int, keys: Keys) -> None:
        self._make_room(slot, keys[0][0].shape[1])
        self._cache.restore(slot, keys)

    def prefill_chunk(self, row: Row, start: int, stop: int) -> tuple[Tensor, Tensor]:
        self._cache.chunk(start)
        means = self._collector.prefill([row.spans], stop - start, start)
        positions = self._positions[None, start:stop]
        logits = self._forward(
            to_device([row.ids[start:stop]], positions.device),
            positions,
            positions,
            self._positions[:stop],
            logits_to_keep=1,
        )
        self._staged_means = means + self._staged_means if start else means
        return self._staged_means, logits[:, -1]

    def unstage(self, slot: int, length: int) -> None:
        self._make_room(slot, length)
        self._cache.unstage(slot, length)

    def decode(self, tokens: Sequence[int], positions: Sequence[int], collect: bool) -> Tensor:
        n = len(tokens)
        rows = n if self._record is None else min(self.n_slots, 1 << (n - 1).bit_length())
        self._cache.resize(n, self._bucket(max(positions) + 1))
        unused = [0] * (rows - n)
        inputs = to_device([[*tokens, *unused], [*positions, *unused]], self._inputs.device)
        self._inputs[:, :rows, 0] = inputs
        return self._step(rows, collect)()[:n]

    def _step(self, rows: int, collect: bool) -> Step:
        """What decodes slots 0..rows-1 as they are laid out now."""
        step = partial(self._decode, rows, collect)
        shape = rows, self._cache.length, collect
        if self._record is not None and shape not in self._recorded:
            kept = self._collector.sums.clone()
            try:
                self._recorded[shape] = self._record(step)
            except RuntimeError as error:
                log.warning(
                    "decode steps cannot be recorded (%s) and are launched operation by operation",
                    type(error).__name__,
                )
                self._record = None
                self._recorded.clear()
            # Recording runs the step, which adds to the sums; the same keys written twice are
            # the same keys.
            self._collector.sums.copy_(kept)
        return self._recorded.get(shape, step)

    def _decode(self, rows: int, collect: bool) -> Tensor:
        tokens, positions = self._inputs[:, :rows]
        self._cache.decode(self._slots[:rows], positions[:, 0])
        self._collector.decode(rows if collect else 0)
        keys = self._positions[: self._cache.length]
        return self._forward(tokens, positions, positions, keys, logits_to_keep=1)[:, -1]

    def move(self, source: int, target: int, length: int) -> None:
        self._cache.move(source, target, length)

    def clear(self, slot: int) -> None:
        self._cache.clear(slot)

    def reset(self) -> None:
        self._cache.reset()

    def close(self) -> None:
        # Recorded steps hold this runner, and the memory that they replay in.
        self._recorded.clear()
        self._cache.close()

    def _make_room(self, n_running: int, length: int) -> None:
        """For a request of `length` positions beside those that run."""
        longest = self._cache.length if n_running else 0
        self._cache.resize(n_running, max(longest, self._bucket(length)))

    def _bucket(self, length: int) -> int:
        bucket = _LENGTH_BUCKET if self._record is None else _LENGTH_BUCKET_RECORDED
        return min(len(self._positions), -(-length // bucket) * bucket)

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
