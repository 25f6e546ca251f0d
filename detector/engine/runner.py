"""What the engine asks of a model, and who runs it: many slots, or one request at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from detector.engine.collector import Collector
from detector.engine.kernels.attention import use_batched_attention
from detector.engine.kernels.cache import Keys
from detector.engine.kernels.graphs import recorder
from detector.engine.kernels.packed import pack_linears
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.prefill import Row
from detector.engine.sequential_runner import SequentialRunner
from detector.engine.slot_runner import SlotRunner, key_sizes, why_not_in_slots

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StateBytes:
    """Memory of one running request: its keys and values, None where the model keeps them
    itself, and its trajectory's running sum.
    """

    cache: int | None
    trajectory: int


class Runner(Protocol):
    """Forward passes for requests that occupy slots 0..n-1, states collected in each.

    A row over `prefill_tokens` is to be prefilled in chunks, in a slot for staging. If
    `alone`, nothing may be prefilled while a request runs. `slot_bytes` is what a slot's keys and
    values take, None if that is not known beforehand.
    """

    alone: bool
    n_slots: int
    prefill_tokens: int
    slot_bytes: int | None

    def prefill(
        self,
        rows: Sequence[Row],
        starting: Sequence[int],
        first_slot: int,
        kept: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor, list[Keys]]:
        """Whole sequences; those `starting` go into slots from `first_slot` on, of those `kept`
        the keys and values are returned.

        Returns the means over each row's spans (L + 1, rows, spans, d), the logits after the
        last token of each row `starting` and then `kept` (their number, vocabulary), and the
        keys. Where requests run `alone` none can be kept.
        """

    def restore(self, slot: int, keys: Keys) -> None:
        """Put what was kept of a prefill into a slot."""

    def prefill_chunk(self, row: Row, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Positions start..stop-1 of the staged row.

        Returns what its positions up to there add to the means over its spans (L + 1, 1, spans,
        d), and the logits after the last of them (1, vocabulary).
        """

    def unstage(self, slot: int, length: int) -> None:
        """Move the staged prompt, `length` positions by now, to a slot."""

    def decode(self, tokens: Sequence[int], positions: Sequence[int], collect: bool) -> Tensor:
        """The newest token of slots 0..n-1, each at its position; the states are added to
        the slots' sums if `collect`. Returns logits (n, vocabulary).
        """

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` positions to another slot."""

    def clear(self, slot: int) -> None:
        """Forget a slot that may hold NaN, which the next request there must not meet."""

    def reset(self) -> None:
        """Forget every slot and the staged prompt."""

    def close(self) -> None:
        """Give the slots' memory back; nothing runs any more."""


def open_runner(
    checkpoint: Checkpoint,
    collector: Collector,
    *,
    n_slots: int,
    max_length: int,
    prefill_tokens: int,
) -> Runner:
    """Slots for a model that says it takes masks and cache from its caller, and does.

    Any other runs one request at a time, and the log says why. Raises UnsupportedModelError
    for one that takes no cache at all.
    """
    model = checkpoint.model
    reason = why_not_in_slots(model)
    if reason is None:
        try:
            sizes = key_sizes(model)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = f"it fails in a cache of slots ({type(error).__name__})"
        else:
            if sizes.layers:
                pack_linears(model, lambda: key_sizes(model))
                use_batched_attention(model)
                return SlotRunner(
                    model,
                    collector,
                    sizes,
                    n_slots,
                    max_length,
                    prefill_tokens,
                    recorder(model.device),
                )
            reason = "it puts no keys into a cache of slots"
    log.warning("model %s runs one request at a time: %s", checkpoint.name, reason)
    return SequentialRunner(model, collector, max_length)
