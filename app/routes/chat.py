"""`POST /v1/chat/completions`, as JSON or as server-sent events.

Both drain the same stream of pieces. Whatever can be refused is refused before the first
byte; a verdict that refuses before the first token costs no decoding.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from app.bridge import Steps
from app.errors import body_of
from app.guard import Judgement
from app.metrics import Metrics
from app.policy import narrow
from app.protocol.openai import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    ResponseMessage,
    Usage,
)
from app.protocol.verdict import chat_verdict
from app.routes.dependencies import AppMetrics, ReadyService
from app.service import Service
from app.stop_texts import StopTexts
from detector.errors import InvalidRequestError, TrajGuardError
from detector.manifest import Sampling

router = APIRouter()
log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Some more text of a response, and why it ended if it did."""

    text: str
    finish_reason: FinishReason | None = None


class Completion:
    """One chat request under way: its pieces, and what is to be said of it at the end."""

    def __init__(self, body: ChatRequest, service: Service, metrics: Metrics) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = service.model_id
        self.judgement = _prepare(body, service)
        self._service = service
        self._metrics = metrics
        self._stop_texts = StopTexts(body.stop_texts)
        self._began = time.perf_counter()
        self._steps: Steps = service.bridge.submit(self.judgement)
        self._seen_first = False

    @property
    def refusal(self) -> str:
        return self._service.settings.refusal

    @property
    def usage(self) -> Usage:
        request = self.judgement.request
        n_prompt, n_response = len(request.prompt), len(request.generated)
        return Usage(
            prompt_tokens=n_prompt,
            completion_tokens=n_response,
            total_tokens=n_prompt + n_response,
        )

    async def pieces(self) -> AsyncGenerator[Piece]:
        """The response's text as it comes; the last piece says why it ended.

        Closing this ends the generation.
        """
        text = self._service.text.stream()
        try:
            async for step in self._steps:
                if not self._seen_first:
                    self._seen_first = True
                    self._metrics.first_token_seconds.observe(time.perf_counter() - self._began)
                if step.token is None or step.finish == "stop":
                    piece = ""
                else:
                    piece = self._stop_texts.push(text.push(step.token))
                if step.finish == "judged":
                    yield Piece("", "content_filter")
                elif self._stop_texts.found:
                    yield Piece(piece, "stop")
                    return
                elif step.finish is not None:
                    length = step.finish == "length"
                    yield Piece(piece + self._stop_texts.flush(), "length" if length else "stop")
                elif piece:
                    yield Piece(piece)
        finally:
            self._steps.close()
            self._record()

    def _record(self) -> None:
        judgement = self.judgement
        usage = self.usage
        self._metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
        self._metrics.tokens.labels("response").inc(usage.completion_tokens)
        verdict = judgement.verdict
        if verdict is None or judgement.decision is None:
            return
        self._metrics.judged(judgement.mode, judgement.decision, verdict)
        log.info(
            "%s decision=%s mode=%s stage=%s score=%s p=%s tokens=%d+%d",
            self.id,
            judgement.decision,
            judgement.mode,
            verdict.stage,
            verdict.score if verdict.score is None else f"{verdict.score:.3f}",
            verdict.p_value if verdict.p_value is None else f"{verdict.p_value:.4f}",
            usage.prompt_tokens,
            usage.completion_tokens,
        )

    def completion(self, content: str, finish_reason: FinishReason) -> ChatCompletion:
        refused = finish_reason == "content_filter"
        # The refusal stands in both fields, because some gateways drop `refusal`.
        message = ResponseMessage(
            content=self.refusal if refused else content,
            refusal=self.refusal if refused else None,
        )
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[Choice(message=message, finish_reason=finish_reason)],
            usage=self.usage,
            trajguard=chat_verdict(self.judgement, self._service.artifact.id),
        )

    def chunk(self, delta: Delta, finish_reason: FinishReason | None = None) -> ChatChunk:
        verdict = None
        if finish_reason is not None:
            verdict = chat_verdict(self.judgement, self._service.artifact.id)
        return ChatChunk(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[ChunkChoice(delta=delta, finish_reason=finish_reason)],
            trajguard=verdict,
        )

    def usage_chunk(self) -> ChatChunk:
        return ChatChunk(
            id=self.id, created=self.created, model=self.model, choices=[], usage=self.usage
        )


def _prepare(body: ChatRequest, service: Service) -> Judgement:
    messages = [{"role": message.role, "content": message.text} for message in body.messages]
    if body.model is not None and body.model != service.model_id:
        raise InvalidRequestError(
            f"model {body.model!r} is not served: use {service.model_id!r} or leave it out",
            param="model",
        )
    calibrated = service.sampling
    sampling = Sampling(
        temperature=_or(body.temperature, calibrated.temperature),
        top_p=_or(body.top_p, calibrated.top_p),
        top_k=_or(body.top_k, calibrated.top_k),
    )
    judgement = service.guard.prepare(
        messages,
        narrow(service.settings.mode, body.trajguard.mode),
        max_tokens=body.response_length or 1,
        sampling=sampling,
        seed=body.seed,
        fields=body.trajguard.fields,
    )
    if body.response_length is None:
        room = service.bridge.engine.capacity().max_length - len(judgement.request.prompt)
        judgement.request.max_tokens = max(1, min(service.settings.max_tokens, room))
    return judgement


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


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
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        return StreamingResponse(
            _events(completion, include_usage),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
    answer = await _unless_disconnected(request, lambda: _drain(completion))
    if answer is None:
        # Nobody is there to read it; the status is for the log and the metrics.
        return Response(status_code=499)
    return JSONResponse(answer.model_dump())


async def _drain(completion: Completion) -> ChatCompletion:
    parts: list[str] = []
    finish_reason: FinishReason = "stop"
    async with aclosing(completion.pieces()) as pieces:
        async for piece in pieces:
            parts.append(piece.text)
            finish_reason = piece.finish_reason or finish_reason
    return completion.completion("".join(parts), finish_reason)


async def _unless_disconnected(request: Request, work: Callable[[], Awaitable[T]]) -> T | None:
    """The result of `work`, or None, with `work` cancelled, once the client has left."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work())
    leaving = asyncio.ensure_future(left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _events(completion: Completion, include_usage: bool) -> AsyncIterator[str]:
    yield _event(completion.chunk(Delta(role="assistant", content="")))
    try:
        async with aclosing(completion.pieces()) as pieces:
            async for piece in pieces:
                if piece.finish_reason == "content_filter":
                    refusal = Delta(content=completion.refusal, refusal=completion.refusal)
                    yield _event(completion.chunk(refusal))
                elif piece.text:
                    yield _event(completion.chunk(Delta(content=piece.text)))
                if piece.finish_reason is not None:
                    yield _event(completion.chunk(Delta(), piece.finish_reason))
    except TrajGuardError as error:
        # The status line is gone; an error event without [DONE] shows that it was cut short.
        yield f"data: {JSONResponse(body_of(error)).body.decode()}\n\n"  # type: ignore[union-attr]
        return
    if include_usage:
        yield _event(completion.usage_chunk())
    yield "data: [DONE]\n\n"


def _event(chunk: BaseModel) -> str:
    return f"data: {chunk.model_dump_json()}\n\n"
