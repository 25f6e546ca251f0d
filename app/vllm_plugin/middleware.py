"""Reads what is asked of vLLM's server before its routes do, and writes verdicts into answers."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.asking.admission import MAX_BODY_BYTES
from app.error_response import ErrorResponse
from app.errors import error_body, internal_error, invalid_body, response_of
from app.vllm_plugin.asking import Asked, Asking, ChatBody, TextBody
from app.vllm_plugin.guarded import CURRENT, Request
from app.vllm_plugin.starting import Started
from app.vllm_plugin.writing import Writer
from detector.errors import TrajGuardError

GUARDED = ("/v1/chat/completions", "/v1/completions")
"""What is answered, guarded."""

UNGUARDED = (
    "/collective_rpc",
    "/generative_scoring",
    "/inference/",
    "/invocations",
    "/structured_decisions",
    "/v1/audio/",
    "/v1/chat/completions/batch",
    "/v1/load_lora_adapter",
    "/v1/messages",
    "/v1/responses",
    "/v2/chat",
)
"""Beginnings of what vLLM answers too and nobody judges, or what would change the model."""

_NEXT = b"\n\n"

log = logging.getLogger("vllm.trajguard")


class Answering:
    """What answers are made by, once the server has started."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._asking: Asking | None = None

    def begin(self, started: Started, asking: Asking) -> None:
        self._started, self._asking = started, asking

    def read(self, path: str, body: Any) -> Asked:
        """Raises ValidationError, and InvalidRequestError for what cannot be judged."""
        assert self._asking is not None
        if path == GUARDED[0]:
            return self._asking.chat(ChatBody.model_validate(body))
        return self._asking.text(TextBody.model_validate(body))

    def writer(self, request: Request) -> Writer:
        assert self._started is not None
        guard = self._started.guard
        text = guard.manifest.context.text
        return Writer(request, self._started.settings, guard.artifact_id, text)


class GuardMiddleware:
    """Pure ASGI, so that streams go by as they come."""

    def __init__(self, app: ASGIApp, answering: Answering) -> None:
        self._app = app
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in GUARDED:
            await self._answer(path, scope, receive, send)
        elif path.startswith(UNGUARDED):
            message = f"{path} is not guarded, so it is not served here: ask {' or '.join(GUARDED)}"
            refused = ErrorResponse(404, error_body(404, message, None, "not_found"))
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        content = await _body(receive)
        if content is None:
            return
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        replayed = _Replayed(content, receive)
        if not isinstance(body, dict):
            # vLLM says what is wrong with it; should it see more in it, nothing is generated.
            await self._app(scope, replayed, send)
            return
        try:
            asked = await asyncio.to_thread(self._answering.read, path, body)
        except ValidationError as error:
            found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
            response = invalid_body(RequestValidationError(found, body=body))
        except TrajGuardError as error:
            response = response_of(error)
        except Exception as error:
            response = internal_error(error, "trajguard")
        else:
            request = Request(asked)
            token = CURRENT.set(request)
            try:
                sending = _Sending(self._answering.writer(request), scope, receive, send)
                await self._app(scope, replayed, sending)
            finally:
                CURRENT.reset(token)
            return
        await response(scope, receive, send)


async def _body(receive: Receive) -> bytes | None:
    """None where the client leaves before it is there. What is longer than any body is cut, which
    vLLM then finds to be no JSON.
    """
    parts: list[bytes] = []
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        if n_bytes <= MAX_BODY_BYTES:
            parts.append(message.get("body", b""))
            n_bytes += len(parts[-1])
        if not message.get("more_body", False):
            return b"".join(parts)[: MAX_BODY_BYTES + 1]


class _Replayed:
    """A body that has been read, to be read again; after it the client, who may leave."""

    def __init__(self, content: bytes, receive: Receive) -> None:
        self._content: bytes | None = content
        self._receive = receive

    async def __call__(self) -> Message:
        if self._content is None:
            return await self._receive()
        content, self._content = self._content, None
        return {"type": "http.request", "body": content, "more_body": False}


class _Sending:
    """Sends an answer of vLLM's with what is to be said of its verdict.

    Its beginning waits for the first part of its body: only then is the prompt's verdict known,
    and whether there is an answer at all.
    """

    def __init__(self, writer: Writer, scope: Scope, receive: Receive, send: Send) -> None:
        self._writer = writer
        self._scope, self._receive, self._send = scope, receive, send
        self._start: Message | None = None
        self._parts: list[bytes] = []
        self._is_stream = False
        self._is_over = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            headers = {name.lower(): value for name, value in message["headers"]}
            self._is_stream = b"text/event-stream" in headers.get(b"content-type", b"")
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        if self._is_over:
            return
        is_last = not message.get("more_body", False)
        self._parts.append(message.get("body", b""))
        if self._is_stream:
            await self._send_events(is_last=is_last)
        elif is_last:
            await self._send_whole()

    async def _send_whole(self) -> None:
        content = b"".join(self._parts)
        assert self._start is not None
        if self._start["status"] == 200:
            if await self._refused():
                return
            answer = json.loads(content)
            self._writer.whole(answer)
            content = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        await self._begin(len(content))
        await self._send({"type": "http.response.body", "body": content})

    async def _send_events(self, *, is_last: bool) -> None:
        content = b"".join(self._parts)
        *events, left = content.split(_NEXT)
        self._parts = [left]
        if is_last and left:
            events.append(left)
        if self._start is not None and (events or is_last):
            if await self._refused():
                return
            await self._begin(None)
        written = [each for event in events if event for each in self._writer.event(event)]
        if written or is_last:
            body = b"".join(each + _NEXT for each in written)
            await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})

    async def _refused(self) -> bool:
        """Whether the answer is an error, because it is refused."""
        try:
            self._writer.require_not_refused()
        except TrajGuardError as error:
            self._is_over = True
            await response_of(error)(self._scope, self._receive, self._send)
            return True
        return False

    async def _begin(self, n_bytes: int | None) -> None:
        assert self._start is not None
        headers = [
            (name, value)
            for name, value in self._start["headers"]
            if name.lower() != b"content-length"
        ]
        if n_bytes is not None:
            headers.append((b"content-length", str(n_bytes).encode()))
        said = self._writer.headers() if self._start["status"] == 200 else {}
        headers += [(name.encode(), value.encode()) for name, value in said.items()]
        await self._send({**self._start, "headers": headers})
        self._start = None
