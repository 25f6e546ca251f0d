"""What every request passes through: pure ASGI, so that streams stay streams."""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import internal_error
from app.metrics import Metrics

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 2**20
_PROBES = ("/health", "/readyz", "/metrics")


_REQUEST_ID = "x-request-id"
_KNOWN_SAFE = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
"""Request ids that may go into logs and headers as they are."""


class RequestLog:
    """One metric and one log line a request, never its content.

    Every request has an id: the client's `x-request-id`, if that is a plain one, else one made
    here. The response carries it, and so does every line about the request in the log.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        code = 500
        asked = Headers(scope=scope).get(_REQUEST_ID, "")
        request_id = asked if _KNOWN_SAFE.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        started = False

        async def watched(message: Message) -> None:
            nonlocal code, started
            if message["type"] == "http.response.start":
                code, started = message["status"], True
                MutableHeaders(scope=message)[_REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if started:
                raise
            # The message may quote a prompt, so only its type and place are logged.
            place = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s internal error: %s\n%s", request_id, type(error).__name__, place)
            await internal_error(error)(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - began
            # A path that no route has is not a label: there is no end of them.
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(route, str(code)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            level = logging.DEBUG if route in _PROBES else logging.INFO
            log.log(level, "%s %s %s %d %.3fs", request_id, scope["method"], route, code, seconds)


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
