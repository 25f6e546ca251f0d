"""`POST /v1/chat/completions`, as JSON or as server-sent events.

Both drain the same stream of pieces. A stream begins with its first piece, so that whatever
fails before that is told by the status line; a verdict that refuses before the first token
costs no decoding.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from app.answer import Answer
from app.completion import Completion
from app.errors import body_of
from app.protocol.openai import ChatCompletion, ChatRequest
from app.response import Piece
from app.routes.dependencies import AppMetrics, ReadyService
from app.routes.leaving import EventStream, unless_disconnected
from detector.errors import TrajGuardError

router = APIRouter()

_LEFT = 499
"""Nobody is there to read it; the status is for the log and the metrics."""


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def chat_completions(
    body: ChatRequest, request: Request, service: ReadyService, metrics: AppMetrics
) -> Response:
    """Answer a conversation, guarded."""
    completion = Completion(body, service, metrics)
    answer = Answer(completion, service, with_logprobs=bool(body.logprobs))
    pieces = completion.pieces()
    try:
        if body.stream:
            first = await unless_disconnected(request, lambda: anext(pieces))
            if first is None:
                return Response(status_code=_LEFT)
            include_usage = body.stream_options is not None and body.stream_options.include_usage
            events = _events(answer, first, pieces, include_usage)
            return EventStream(events, completion.close)
        all_pieces = await unless_disconnected(request, lambda: _drained(pieces))
        if all_pieces is None:
            return Response(status_code=_LEFT)
        return JSONResponse(answer.whole(all_pieces).model_dump())
    except BaseException:
        completion.close()
        raise


async def _drained(pieces: AsyncIterator[Piece]) -> list[Piece]:
    return [piece async for piece in pieces]


async def _events(
    answer: Answer, first: Piece, rest: AsyncGenerator[Piece], include_usage: bool
) -> AsyncIterator[str]:
    for chunk in (*answer.opening(), *answer.chunks(first)):
        yield _event(chunk)
    try:
        async with aclosing(rest):
            async for piece in rest:
                for chunk in answer.chunks(piece):
                    yield _event(chunk)
    except TrajGuardError as error:
        # The status line is gone; an error event without [DONE] shows that it was cut short.
        yield f"data: {JSONResponse(body_of(error)).body.decode()}\n\n"  # type: ignore[union-attr]
        return
    if include_usage:
        yield _event(answer.usage())
    yield "data: [DONE]\n\n"


def _event(chunk: BaseModel) -> str:
    return f"data: {chunk.model_dump_json()}\n\n"
