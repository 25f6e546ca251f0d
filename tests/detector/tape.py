"""Stands in for CUDA graphs on the CPU: records operations, and replays them without the Python
between them. What a step takes from Python is frozen when it is recorded, as in a CUDA graph.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detector.engine.kernels.graphs import Step

WAITS = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::item",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave.Tensor",
    "aten::unique_dim",
    "aten::_unique2",
}
"""Operations whose outcome or its shape the host must know: on CUDA it waits for the device."""

FROM_HOST = "aten::lift_fresh"
"""What `torch.tensor` calls to make a tensor of numbers that Python holds."""


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        if {name, f"{name}.{func._schema.overload_name}"} & {*WAITS, FROM_HOST}:
            raise RuntimeError(f"{name} cannot be recorded")
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self._calls:
            if func._schema.is_mutable:
                func(*args, **kwargs)
            elif not _storages([result]) & _storages([args, kwargs]):  # else it is a view
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


def _storages(values: Sequence[Any]) -> set[int]:
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    return {t.untyped_storage().data_ptr() for t in tensors if t.layout == torch.strided}


class Taping:
    """A recorder that counts what it records and replays."""

    def __init__(self) -> None:
        self.n_recorded = 0
        self.n_replayed = 0

    def recorder(self, device: torch.device) -> Callable[[Step], Step]:
        return self.record

    def record(self, step: Step) -> Step:
        step()
        with Tape() as tape:
            output = step()
        self.n_recorded += 1

        def replay() -> Tensor:
            tape.replay()
            self.n_replayed += 1
            return output

        return replay
