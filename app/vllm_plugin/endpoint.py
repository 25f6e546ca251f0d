"""The guard in vLLM's server: what it answers by, and what it reads and writes on the way.

vLLM's own routes answer. The guard stands before them, as middleware that reads bodies and writes
verdicts, and behind them, in front of vLLM's engine: what has not come by the first gets nothing
of the second.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import Any

from app.asking.admission import Admission
from app.vllm_plugin.asking import Asking
from app.vllm_plugin.calls import Calls
from app.vllm_plugin.guarded import GuardedEngine
from app.vllm_plugin.metrics import PluginMetrics
from app.vllm_plugin.middleware import Answering, GuardMiddleware
from app.vllm_plugin.self_testing import self_test
from app.vllm_plugin.starting import Started, started, take_checkpoint
from detector.errors import TrajGuardError

log = logging.getLogger("vllm.trajguard")


class Endpoint:
    """As vLLM wants its endpoint plugins."""

    name = "trajguard"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._answering = Answering()

    def attach_router(self, app: Any) -> None:
        app.add_middleware(GuardMiddleware, answering=self._answering)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Raises UnguardableError where the server was started without the guard."""
        guarded = started()
        max_length = engine_client.model_config.max_model_len - 1
        admission = Admission(
            guarded.settings, guarded.guard.manifest, guarded.guard.codec, "", max_length
        )
        asking = Asking(admission)
        metrics = PluginMetrics()
        calls = Calls(
            guarded.guard.detector, dict(guarded.guard.others), engine_client.collective_rpc
        )
        calls.listen(guarded.orders.address)
        generate = partial(guarded.generate, engine_client)
        await _test(generate, calls, engine_client.vllm_config.scheduler_config)
        engine = GuardedEngine(
            engine_client,
            generate,
            asking,
            calls,
            guarded.orders.stop_token,
            metrics.judged,
        )
        engine_client.generate = engine.generate
        self._answering.begin(guarded, asking)
        _tell(guarded)


async def _test(generate: Any, calls: Calls, scheduling: Any) -> None:
    try:
        await self_test(
            take_checkpoint(), generate, calls, looks_at_end=not scheduling.async_scheduling
        )
    except TrajGuardError as error:
        sys.exit(f"trajguard: not started [{error.code}]: {error.message}")


def _tell(guarded: Started) -> None:
    log.info(
        "guarded: artifact %s (%s), mode %s, alpha %g, %s",
        guarded.guard.artifact_id,
        guarded.guard.manifest.scope,
        guarded.settings.mode,
        guarded.guard.detector.alpha,
        guarded.guard.standing,
    )
