"""Decode steps recorded as CUDA graphs: launched at once instead of operation by operation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[], Tensor]
"""Works on memory that stays where it is; what it returns holds until any step runs again."""

Record = Callable[[Step], Step]
"""Runs a step at least once, and returns what runs it again as often as it is called."""


def recorder(device: torch.device) -> Record | None:
    """Records CUDA graphs, which share their memory as they never run at once; on CUDA alone.

    Recording raises RuntimeError for a step that waits for the device.
    """
    if device.type != "cuda":
        return None
    pool = torch.cuda.graph_pool_handle()

    def record(step: Step) -> Step:
        # Libraries take workspaces and choose kernels at first use, which no graph may hold.
        current, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            step()
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                output = step()
        finally:
            # A capture that fails leaves its own stream the current one.
            torch.cuda.set_stream(current)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

    return record
