"""Which models run under an engine: one runs under one at a time."""

from __future__ import annotations

from weakref import WeakSet

from transformers import PreTrainedModel

from detector.engine.model.checkpoint import Checkpoint
from detector.errors import EngineError

_in_use: WeakSet[PreTrainedModel] = WeakSet()


def require_free(checkpoint: Checkpoint) -> None:
    """Raise EngineError when an engine runs the model."""
    if checkpoint.model in _in_use:
        raise EngineError(
            f"model {checkpoint.name!r} already runs under an engine: close that one first"
        )


def claim(checkpoint: Checkpoint) -> None:
    _in_use.add(checkpoint.model)


def release(checkpoint: Checkpoint) -> None:
    _in_use.discard(checkpoint.model)
