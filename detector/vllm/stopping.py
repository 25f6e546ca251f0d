"""How a response is ended from inside vLLM: all of its logits but those of one token are masked.

That token ends a response by vLLM's own rules, since its request names it as a stop token, and no
other response may have it. So an end comes with the step that judged, by no message and no token
late, and whoever reads the responses knows it by its stop token. As a logits processor of vLLM's
it comes after everything else that forbids tokens: grammars, `min_tokens`, lists of allowed tokens.

vLLM has its processors made by their names; what they are to do is said in `STOPS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SecondProcessor


@dataclass
class Stops:
    """The token that ends responses, None where nothing is guarded, and the rows that end in the
    draw that comes next.
    """

    token: int | None = None
    rows: Sequence[int] = ()


STOPS = Stops()
"""Of this process, which has one worker."""


def name_of(*, is_v2: bool) -> str:
    """What vLLM is told to make for its first model runner, or for its second."""
    return f"{__name__}:{(StopProcessorV2 if is_v2 else StopProcessor).__name__}"


def stop(logits: Tensor) -> Tensor:
    """Leave those who are to end one token, and it to nobody else; in place."""
    if STOPS.token is None:
        return logits
    logits[:, STOPS.token] = -torch.inf
    if STOPS.rows:
        rows = torch.tensor(STOPS.rows, device=logits.device)
        logits[rows] = -torch.inf
        logits[rows, STOPS.token] = 0.0
    return logits


class StopProcessor(LogitsProcessor):  # type: ignore[misc]
    def __init__(self, config: Any, device: torch.device, is_pin_memory: bool) -> None:
        pass

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        pass

    def apply(self, logits: Tensor) -> Tensor:
        return stop(logits)


class StopProcessorV2(SecondProcessor):  # type: ignore[misc]
    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        return stop(logits)
