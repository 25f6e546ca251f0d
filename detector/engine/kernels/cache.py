"""The keys and values of running requests: one dense slot each.

A duck-typed stand-in for transformers' cache. The engine says what the next forward pass
is (`prompts`, `chunk` or `decode`), and the model's attention layers call `update` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Write = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]

Keys = Sequence[tuple[Tensor, Tensor]]
"""One prompt's keys and values, a layer each (heads, positions, head_dim)."""


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


class _Slots:
    """The keys, or the values, of one layer.

    slots: (n_slots, heads, length, head_dim), contiguous for any length up to the most,
    because products over strided keys cost up to twice as much. staged: (1, heads, most, head_dim).
    """

    def __init__(self, one: Tensor, n_slots: int, max_length: int) -> None:
        _, self._heads, _, self._width = one.shape
        self._n_slots = n_slots
        self._storage = one.new_zeros(n_slots * self._heads * max_length * self._width)
        self.slots = self._of_length(0)
        self.staged = one.new_zeros(1, self._heads, max_length, self._width)

    def _of_length(self, length: int) -> Tensor:
        shape = (self._n_slots, self._heads, length, self._width)
        return self._storage[: self._n_slots * self._heads * length * self._width].view(shape)

    def resize(self, n_used: int, length: int) -> None:
        used = self.slots[:n_used, :, :length].clone()
        self.slots = self._of_length(length)
        self.slots[:n_used, :, : used.shape[2]] = used

    @property
    def nbytes(self) -> int:
        return self._storage.nbytes + self.staged.nbytes

    def reset(self) -> None:
        self._storage.zero_()
        self.staged.zero_()


class SlotCache:
    """Keys and values of `n_slots` slots and, aside, of one prompt that is staged.

    Memory for `max_length` positions is taken at once; slots are laid out in it for `length`,
    which is to be set to what the requests in them need.
    """

    is_compileable = False

    def __init__(
        self, layers: Mapping[int, tuple[Tensor, Tensor]], n_slots: int, max_length: int
    ) -> None:
        self._layers = {
            layer: (_Slots(key, n_slots, max_length), _Slots(value, n_slots, max_length))
            for layer, (key, value) in layers.items()
        }
        self._all = [slots for pair in self._layers.values() for slots in pair]
        self._write: Write | None = None
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Memory of all slots and of the staged prompt, which takes as much as a slot."""
        return sum(slots.nbytes for slots in self._all)

    def resize(self, n_used: int, length: int) -> None:
        """Lay the slots out for `length` positions each; slots 0..n_used-1 keep theirs."""
        if length != self.length:
            for slots in self._all:
                slots.resize(n_used, length)
            self.length = length

    def prompts(self, rows: Tensor, slots: Tensor, aside: Mapping[int, int]) -> dict[int, Keys]:
        """Next: whole prompts, right-padded; keep batch rows `rows` in `slots`. Returns where
        the keys and values of the rows `aside`, as many positions as it says, will be found, a
        layer each.
        """
        found: dict[int, list[tuple[Tensor, Tensor]]] = {row: [] for row in aside}

        def write(layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            if len(rows):
                for kept, new in zip(self._layers[layer], (key, value), strict=True):
                    kept.slots[slots, :, : new.shape[2]] = new[rows]
            for row, n in aside.items():
                found[row].append((key[row, :, :n].clone(), value[row, :, :n].clone()))
            return key, value

        self._write = write
        return dict(found)

    def restore(self, slot: int, keys: Keys) -> None:
        """Copy what `prompts` found of a row into a slot."""
        for layer, kept in zip(self._layers.values(), keys, strict=True):
            for slots, one in zip(layer, kept, strict=True):
                slots.slots[slot, :, : one.shape[1]] = one

    def chunk(self, start: int) -> None:
        """Next: the staged prompt's tokens from position `start`, seeing all before them."""

        def write(layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            keys, values = self._layers[layer]
            stop = start + key.shape[2]
            keys.staged[:, :, start:stop] = key
            values.staged[:, :, start:stop] = value
            return keys.staged[:, :, :stop], values.staged[:, :, :stop]

        self._write = write

    def unstage(self, slot: int, length: int) -> None:
        """Copy the staged prompt's first `length` positions to a slot."""
        for slots in self._all:
            slots.slots[slot, :, :length] = slots.staged[0, :, :length]

    def decode(self, slots: Tensor, positions: Tensor) -> None:
        """Next: one token for each of `slots`, 0..n-1, at `positions` (n,). All `length`
        positions are seen, of which the mask must hide what is not theirs.
        """

        def write(layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            keys, values = (kept.slots[: len(slots)] for kept in self._layers[layer])
            keys[slots, :, positions] = key[:, :, 0]
            values[slots, :, positions] = value[:, :, 0]
            return keys, values

        self._write = write

    def update(
        self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by the model's attention: store this pass's keys, return all to attend."""
        assert self._write is not None
        return self._write(layer, key, value)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` positions to another slot."""
        for slots in self._all:
            slots.slots[target, :, :length] = slots.slots[source, :, :length]

    def clear(self, slot: int) -> None:
        """Zero a slot that may hold NaN, which a mask would not hide: 0 * NaN is NaN."""
        for slots in self._all:
            slots.slots[slot] = 0

    def reset(self) -> None:
        """Zero everything."""
        for slots in self._all:
            slots.reset()

    def close(self) -> None:
        """Give the memory back: what is next to write refers to this cache too."""
        self._layers = {}
        self._all = []
        self._write = None

    def get_seq_length(self, layer: int = 0) -> int:
        """Positions are always passed to the model explicitly."""
        return 0
