"""What the guard inside vLLM's worker keeps: calls, sequences under way, and what a step is due.

This file knows nothing of vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detector.backend import Ask
from detector.engine.prefill import Row
from detector.errors import EngineError
from detector.judge import Judgement
from detector.trajectory import END, Look
from detector.vllm.pooling import Part, Pool


class SafePool(Pool):
    """A pool that keeps what its last step was, and what could not be pooled of it, in place of
    failing it: `errors` by the names of requests, which it then forgets.
    """

    def __init__(self, n_planes: int, width: int, n_seats: int, device: torch.device) -> None:
        super().__init__(n_planes, width, n_seats, device)
        self.parts: Sequence[Part] = ()
        self.errors: dict[str, Exception] = {}

    def collect(self, parts: Iterable[Part], planes: Sequence[Tensor]) -> None:
        self.parts = list(parts)
        try:
            super().collect(self.parts, planes)
        except Exception as error:
            self.errors |= dict.fromkeys((part.name for part in self.parts), error)
        for name in self.errors:
            self.forget(name)

    def unpooled(self, name: str, error: EngineError) -> None:
        self.errors[name] = error


@dataclass(eq=False)
class Call:
    """Responses to one prompt, and what has been judged of each. `broken` names what was raised
    where their trajectories were to be made: from there on they cannot be judged. Those that are to
    end are `ending`. It is looked at
    at `looks`, and `traced` is one of the self-test.
    """

    name: str
    looks: frozenset[Look]
    traced: bool
    asks: tuple[Ask, ...]
    judgements: tuple[Judgement, ...]
    broken: str | None = None
    ending: set[int] = field(default_factory=set)
    n_flying: int = 0
    n_ended: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nobody will ask of it any more."""
        ended = self.n_ended == len(self.asks)
        return not self.n_flying and (self.traced or (ended and END not in self.looks))


@dataclass(eq=False)
class Flight:
    """A sequence that vLLM runs for a call: response `index`, or its question where that is None.
    Its looks were taken at `n_looked` tokens and before.
    """

    name: str
    call: Call
    row: Row
    index: int | None
    n_looked: int = 0


@dataclass
class Due:
    """The looks of one step: whose, and at what mean; of responses that is `running`, and read for
    all of a look at once. What nothing can be shown of is `failing`, by
    the name of what was raised, or None where it is not finite.
    """

    shown: dict[Look, list[tuple[Call, int, Tensor]]] = field(default_factory=dict)
    running: dict[Look, list[Flight]] = field(default_factory=dict)
    failing: list[tuple[Look, Call, int, str | None]] = field(default_factory=list)

    def show(self, look: Look, call: Call, index: int, mean: Tensor) -> None:
        self.shown.setdefault(look, []).append((call, index, mean))
