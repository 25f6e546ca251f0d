"""One request under way: what was asked, and how far it has come. The engine's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detector.backend import Ask, Finish

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessorList


@dataclass(eq=False)
class Run:
    """What becomes of an ask.

    `first` is the run of `ask.first`. `deadline` is in seconds of the engine's clock,
    `n_cached` the number of positions whose keys are kept. The draw's `processors` and
    `generator` are made at its first token.
    """

    ask: Ask
    first: Run | None = None
    deadline: float = math.inf
    cancelled: bool = False
    n_cached: int = 0
    generated: list[int] = field(default_factory=list)
    finish: Finish | None = None
    processors: LogitsProcessorList | None = None
    generator: torch.Generator | None = None
