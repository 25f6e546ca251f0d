"""The HTTP server's life: it drains before it stops, and stops when the engine is dead."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from socket import socket
from types import FrameType

import uvicorn

from app.loading import Loaded, load
from app.main import create_app
from app.settings import Settings

log = logging.getLogger(__name__)

_IDLE_SECONDS = 75
"""How long a connection may be idle: longer than clients and gateways keep one (5 to 60 s), which
would otherwise now and then send a request into one that is being closed.
"""

_WRITING_SECONDS = 3
"""How long uvicorn waits for the last bytes of responses whose requests have ended."""


class Server(uvicorn.Server):
    """Serves the application until a signal comes or its engine dies.

    At the first signal it drains: uvicorn goes on, so that probes and clients are told 503, until
    the requests under way have ended or `drain_seconds` are over. The second ends it at once.
    """

    def __init__(self, settings: Settings, load: Callable[[Settings], Loaded] = load) -> None:
        self.app = create_app(settings, load, engine_died=self._on_engine_died)
        self.exit_status = 0
        self._drain_seconds = settings.drain_seconds
        self._drain: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            self.app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_WRITING_SECONDS,
        )
        super().__init__(config)

    @property
    def engine_hangs(self) -> bool:
        loaded = self._loaded
        return loaded is not None and loaded.engine.hangs

    async def serve(self, sockets: list[socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come. uvicorn would raise it again in the end, and so never exit with 0."""
        if self._drain is not None:
            super().handle_exit(sig, frame)
            return
        log.info("%s: draining", signal.Signals(sig).name)
        self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        if self._drain is None:
            self._drain = self._loop.create_task(self._drain_and_stop())

    async def _drain_and_stop(self) -> None:
        if self._loaded is not None:
            await self._loaded.engine.drain(self._drain_seconds)
        self.should_exit = True

    def _on_engine_died(self) -> None:
        self.exit_status = 1
        self.should_exit = True

    @property
    def _loaded(self) -> Loaded | None:
        loaded: Loaded | None = self.app.state.trajguard.loading.result
        return loaded
