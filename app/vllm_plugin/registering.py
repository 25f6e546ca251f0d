"""What vLLM calls by the package's entry points, each time in every process that loads plugins.

Nothing is imported here that could fail: of a plugin that cannot be imported vLLM writes a line
to its log and goes on, without the guard.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.vllm_plugin.endpoint import Endpoint

NAME = "trajguard"


def register() -> None:
    """Have a server that is started with VLLM_PLUGINS=trajguard start guarded, or not at all.

    vLLM loads all general plugins where it is not told which: then the guard stays out, as it does
    in TrajGuard's own service over vLLM.
    """
    if NAME not in os.environ.get("VLLM_PLUGINS", "").replace(" ", "").split(","):
        return
    from vllm.engine.arg_utils import EngineArgs

    original = EngineArgs.create_engine_config
    if getattr(original, "guards", False):
        return

    def create_engine_config(
        arguments: Any, usage_context: Any = None, headless: bool = False
    ) -> Any:
        from app.vllm_plugin.starting import start
        from detector.errors import TrajGuardError

        try:
            return start(arguments, original, usage_context, headless=headless)
        except TrajGuardError as error:
            sys.exit(f"trajguard: not started [{error.code}]: {error.message}")

    create_engine_config.guards = True  # type: ignore[attr-defined]
    EngineArgs.create_engine_config = create_engine_config


def endpoint() -> Endpoint:
    """What vLLM's server is given to answer by."""
    from app.vllm_plugin.endpoint import Endpoint

    return Endpoint()
