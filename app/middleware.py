"""What every request passes through: pure ASGI, so that streams stay streams."""

from __future__ import annotations

import logging
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics import Metrics

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 2**20
_PROBES = ("/health", "/readyz", "/metrics")


class RequestLog:
    """One metric and one log line a request, never its content."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        code = 500

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - began
            # A path that no route has is not a label: there is no end of them.
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(route, str(code)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            level = logging.DEBUG if route in _PROBES else logging.INFO
            log.log(level, "%s %s %d %.3fs", scope["method"], route, code, seconds)


class BodyLimit:
    """413 for bodies over MAX_BODY_BYTES, raised where the error handlers answer it;
    Starlette's own limit answers in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        n_bytes = 0

        async def limited() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > MAX_BODY_BYTES:
                raise HTTPException(413)
            return message

        await self._app(scope, limited, send)
