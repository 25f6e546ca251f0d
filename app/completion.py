"""One chat request under way: admitted, its choices' pieces, what is said of it at the end."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import AsyncGenerator
from typing import TypeVar

from app.bridge import Steps
from app.guard import Judgement, choices
from app.metrics import Metrics
from app.policy import narrow
from app.protocol.openai import ChatRequest, Usage
from app.response import Piece, Response
from app.service import Service
from detector.backend import Sampling
from detector.errors import InvalidRequestError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Completion:
    """Admitted when made, all choices or none: raises what `Bridge.submit` raises, and
    InvalidRequestError. `close` ends what is left of it.
    """

    def __init__(self, body: ChatRequest, service: Service, metrics: Metrics) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = service.model_id
        self.judgements = _prepare(body, service)
        self._metrics = metrics
        self._began = time.perf_counter()
        self._seen_first = False
        self._closed = False
        self._responses = {
            judgement.request: Response(
                index, service.text, body.stop_texts, judgement.request.sampling.min_tokens
            )
            for index, judgement in enumerate(self.judgements)
        }
        self._steps: Steps = service.bridge.submit(*self.judgements)

    @property
    def usage(self) -> Usage:
        """The prompt counts once, however many choices were made of it."""
        n_prompt = len(self.judgements[0].request.prompt)
        n_response = sum(response.n_tokens for response in self._responses.values())
        return Usage(
            prompt_tokens=n_prompt,
            completion_tokens=n_response,
            total_tokens=n_prompt + n_response,
        )

    @property
    def judgement(self) -> Judgement:
        """That of the choice that is most OOD."""
        return max(self.judgements, key=_score)

    async def pieces(self) -> AsyncGenerator[Piece]:
        """The choices' responses as they come; the last piece of each says why it ended.

        Closing this ends the generation. Raises DeadlineError, and EngineError when the
        engine fails.
        """
        try:
            async for step in self._steps:
                if not self._seen_first:
                    self._seen_first = True
                    self._metrics.first_token_seconds.observe(time.perf_counter() - self._began)
                piece = self._responses[step.request].push(step)
                if piece is None:
                    continue
                if piece.finish_reason is not None:
                    self._steps.leave(step.request)
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        """Cancel what still runs; count and log the request, once."""
        if self._closed:
            return
        self._closed = True
        self._steps.close()
        usage, judgement = self.usage, self.judgement
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


def _score(judgement: Judgement) -> float:
    score = None if judgement.verdict is None else judgement.verdict.score
    return -math.inf if score is None else score


def _prepare(body: ChatRequest, service: Service) -> list[Judgement]:
    settings = service.settings
    if body.model is not None and body.model != service.model_id:
        raise InvalidRequestError(
            f"model {body.model!r} is not served: use {service.model_id!r} or leave it out",
            param="model",
        )
    n, most = _or(body.n, 1), min(settings.max_choices, settings.max_queue)
    if n > most:
        raise InvalidRequestError(
            f"n {n} is more than the {most} choices that this service gives at once: ask for fewer",
            param="n",
        )
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError(
            f"top_logprobs {body.top_logprobs} needs logprobs: send logprobs true with it",
            param="top_logprobs",
        )
    judgement = service.guard.prepare(
        [{"role": message.role, "content": message.text} for message in body.messages],
        narrow(settings.mode, body.trajguard.mode),
        max_tokens=body.response_length or 1,
        sampling=_sampling(body, service.sampling),
        seed=body.seed,
        fields=body.trajguard.fields,
    )
    request = judgement.request
    if body.response_length is None:
        room = service.bridge.engine.capacity().max_length - len(request.prompt)
        request.max_tokens = max(1, min(settings.max_tokens, room))
    if request.sampling.min_tokens > request.max_tokens:
        raise InvalidRequestError(
            f"min_tokens {request.sampling.min_tokens} is more than the response may have "
            f"({request.max_tokens} tokens): lower it or raise max_tokens",
            param="min_tokens",
        )
    request.n_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    asked = body.trajguard.timeout_seconds
    request.timeout_seconds = min(settings.timeout_seconds, _or(asked, math.inf))
    return choices(judgement, n)


def _sampling(body: ChatRequest, calibrated: Sampling) -> Sampling:
    """The calibrated sampling, with what the request says instead."""
    asked = {name: getattr(body, name) for name in Sampling.model_fields}
    said = {name: value for name, value in asked.items() if value is not None}
    return Sampling(**(calibrated.model_dump() | said))


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
