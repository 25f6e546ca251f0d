"""The keys and values of running requests: one dense slot each.

A duck-typed stand-in for transformers' cache. The engine says what the next forward pass
is (`prompts`, `chunk` or `decode`), and the model's attention layers call `update` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Write = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class KeySizes:
    """Stands in for the cache in one forward pass, to learn what the model keeps in it.

    layers: for each layer that keeps any, its keys and values of one position, (1, heads,
    1, head_dim) each; layers and their keys and values may differ in size.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.layers[layer] = (key, value)
        return key, value

    def get_seq_length(self, layer: int = 0) -> int:
        return 0


class SlotCache:
    """Per layer, keys and values (n_slots, kv_heads, max_length, head_dim)."""

    is_compileable = False

    def __init__(
        self, layers: Mapping[int, tuple[Tensor, Tensor]], n_slots: int, max_length: int
    ) -> None:
        def slots(one: Tensor) -> Tensor:
            return one.new_zeros(n_slots, one.shape[1], max_length, one.shape[3])

        self._keys = {layer: slots(key) for layer, (key, _) in layers.items()}
        self._values = {layer: slots(value) for layer, (_, value) in layers.items()}
        self._write: Write | None = None

    @property
    def nbytes(self) -> int:
        """Memory of all slots."""
        return sum(t.nbytes for t in (*self._keys.values(), *self._values.values()))

    def prompts(self, rows: Tensor, slots: Tensor) -> None:
        """Next: whole prompts, right-padded; keep batch rows `rows` in `slots`."""

        def write(
            keys: Tensor, values: Tensor, key: Tensor, value: Tensor
        ) -> tuple[Tensor, Tensor]:
            if len(rows):
                keys[slots, :, : key.shape[2]] = key[rows]
                values[slots, :, : key.shape[2]] = value[rows]
            return key, value

        self._write = write

    def chunk(self, slot: int, start: int) -> None:
        """Next: one request's tokens from position `start`, seeing all before them."""

        def write(
            keys: Tensor, values: Tensor, key: Tensor, value: Tensor
        ) -> tuple[Tensor, Tensor]:
            stop = start + key.shape[2]
            keys[slot, :, start:stop] = key[0]
            values[slot, :, start:stop] = value[0]
            return keys[slot : slot + 1, :, :stop], values[slot : slot + 1, :, :stop]

        self._write = write

    def decode(self, positions: Tensor, length: int) -> None:
        """Next: one token for each of slots 0..n-1 at `positions` (n,); keys are seen up
        to `length`, beyond which the mask must hide nothing that is needed.
        """
        slots = torch.arange(len(positions), device=positions.device)

        def write(
            keys: Tensor, values: Tensor, key: Tensor, value: Tensor
        ) -> tuple[Tensor, Tensor]:
            keys[slots, :, positions] = key[:, :, 0]
            values[slots, :, positions] = value[:, :, 0]
            return keys[: len(slots), :, :length], values[: len(slots), :, :length]

        self._write = write

    def update(
        self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by the model's attention: store this pass's keys, return all to attend."""
        assert self._write is not None
        return self._write(self._keys[layer], self._values[layer], key, value)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` positions to another slot."""
        for tensor in (*self._keys.values(), *self._values.values()):
            tensor[target, :, :length] = tensor[source, :, :length]

    def clear(self, slot: int | slice) -> None:
        """Zero a slot that may hold NaN, which a mask would not hide: 0 * NaN is NaN."""
        for tensor in (*self._keys.values(), *self._values.values()):
            tensor[slot] = 0

    def get_seq_length(self, layer: int = 0) -> int:
        """Positions are always passed to the model explicitly."""
        return 0
