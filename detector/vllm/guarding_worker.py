"""vLLM's worker as its own server has it, guarded: `PoolingWorker`, which judges what it pools.

It is told how by its server, in the environment of the process that vLLM makes for its engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector import artifact as artifacts
from detector.errors import ArtifactMismatchError
from detector.vllm.guarding import Guard, log_failure
from detector.vllm.stopping import STOPS
from detector.vllm.tickets import VARIABLE, Orders, Ticket
from detector.vllm.watched import SafePool
from detector.vllm.worker import PoolingWorker

NAME = f"{__name__}.GuardingWorker"
"""What vLLM is told to make."""


class GuardingWorker(PoolingWorker):
    """Its `guard` judges. Draws are vLLM's own, seeds and all."""

    guard: Guard

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Raises what loading the artifact raises, and ArtifactMismatchError where its file has
        become another since the server read it.
        """
        super().load_model(load_dummy_weights=load_dummy_weights)
        orders = Orders(**json.loads(os.environ[VARIABLE]))
        artifact = artifacts.load(Path(orders.artifact))
        if artifact.id != orders.artifact_id:
            raise ArtifactMismatchError(
                f"artifact {orders.artifact!r} has changed from {orders.artifact_id} to "
                f"{artifact.id} during the start: start again",
                param="artifact",
            )
        self.runner.keeps_generators = True
        n_seats, n_planes, width = self.pool.sums.shape
        self.pool = SafePool(n_planes, width, n_seats, self.device)
        # Nobody is told here why: neighbours are the service's.
        judging = replace(artifact.detector, neighbours=None)
        detectors = {
            alpha: judging.at(alpha, orders.guarantee).to(self.device)  # type: ignore[arg-type]
            for alpha in {orders.alpha, *orders.alphas}
        }
        self.guard = Guard(detectors[orders.alpha], detectors, self.pool, _teller(orders.address))
        self.before_draw = self._before_draw
        STOPS.token = orders.stop_token

    @torch.inference_mode()
    def execute_model(self, scheduler_output: Any) -> Any:
        self.guard.forget_step()
        for name in scheduler_output.finished_req_ids:
            with _unfailing():
                self.guard.finish(name)
        for new in scheduler_output.scheduled_new_reqs:
            with _unfailing():
                self._begin(new)
        output = super().execute_model(scheduler_output)
        with _unfailing():
            self.guard.step()
        return output

    def _begin(self, new: Any) -> None:
        params = new.sampling_params
        ticket = None if params is None else Ticket.read(params.extra_args)
        if ticket is not None:
            self.guard.begin(new.req_id, new.prompt_token_ids or (), ticket)

    def _before_draw(
        self, names: list[str], logits: Tensor, generators: dict[int, torch.Generator] | None
    ) -> None:
        STOPS.rows = ()
        with _unfailing():
            STOPS.rows = self.guard.ends(names)

    def end_look(self, call: str, index: int) -> str:
        """Called by the server: what has been judged of a response that has ended, as JSON."""
        with torch.inference_mode():
            return json.dumps(self.guard.end(call, index))


@contextmanager
def _unfailing() -> Iterator[None]:
    """What the guard does may end no step: of whom it tells nothing, the server takes that for a
    failure.
    """
    try:
        yield
    except Exception as error:
        log_failure(error)


def _teller(address: str) -> Any:
    """Sends what it is given, and waits for nothing."""
    import zmq

    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(address)

    def tell(said: Mapping[str, Any]) -> None:
        socket.send(json.dumps(said).encode(), zmq.NOBLOCK)

    return tell
