"""What all routes for gateways share: texts and conversations in, what was found of each out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import Response

from app.asking.admission import Admission
from app.asking.asked import Asked
from app.asking.score import Conversation, ask_to_read
from app.calls import Call
from app.json_body import JsonRoute
from app.judging import NotJudged, log_not_judged
from app.routes.dependencies import (
    AppMetrics,
    JudgedEvent,
    Ready,
    RequestId,
    RequestWorkers,
    SecondOpinions,
)
from app.routes.leaving import LEFT, unless_disconnected
from app.scoring import score
from app.security import CallerOf
from app.wire.relayed import RelayedMessage, read_by_models, shows
from app.writing.finding import NOTHING, Finding, finding_of


class Left(Exception):  # noqa: N818 (no error: nobody is there to be told)
    """The client left before it was answered."""


class GatewayRoute(JsonRoute):
    """A route whose client may leave while it is judged."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except Left:
                return Response(status_code=LEFT)

        return answered


class Gateway:
    """Judges what one request of a gateway's holds."""

    def __init__(
        self,
        request: Request,
        caller: CallerOf,
        loaded: Ready,
        judged: JudgedEvent,
        metrics: AppMetrics,
        request_id: RequestId,
        workers: RequestWorkers,
        opinions: SecondOpinions,
    ) -> None:
        self.loaded = loaded
        self._request = request
        self._detail = caller.sees_detail
        self._judged = judged
        self._metrics = metrics
        self._request_id = request_id
        self._workers = workers
        self._opinions = opinions

    async def judge(
        self, conversations: Sequence[Conversation | None], call: Call | None = None
    ) -> list[Finding]:
        """What was found of each, in order; nothing of one that holds no question, which is
        counted as not judged. What the `call` knows already is not read again.
        """
        there = [each for each in conversations if each is not None]
        asked = await self._workers.run(_ask_all, self.loaded.admission, there)
        keys = [_key(self.loaded.artifact_id, each) for each in asked]
        if call is not None:
            asked = [call.known.get(key, each) for key, each in zip(keys, asked, strict=True)]
        new = [each for each in asked if each.judgements[0].verdict is None]
        if new:
            await self._read(new)
        for key, each in zip(keys, asked, strict=True):
            judgement = each.judgements[0]
            verdict, opinion = judgement.verdict, judgement.opinion
            failed = opinion is not None and opinion.failure is not None
            if verdict is None:
                self.not_judged("no_look")
            elif call is not None and not verdict.failures and not failed:
                # One that could not be judged may be another time.
                call.learn(key, each)
        for _ in range(len(conversations) - len(there)):
            self.not_judged("empty")
        found = iter(asked)
        return [
            NOTHING if each is None else finding_of(next(found), self.loaded, detail=self._detail)
            for each in conversations
        ]

    async def judge_one(self, conversation: Conversation | None) -> Finding:
        (found,) = await self.judge([conversation])
        return found

    def not_judged(self, reason: NotJudged) -> None:
        """Count what is let go on because nothing could be judged of it."""
        self._metrics.not_judged.labels(reason).inc()
        log_not_judged(self._request_id, reason)

    async def _read(self, asked: Sequence[Asked]) -> None:
        async def read() -> bool:
            await score(self.loaded, asked, self._judged, self._request_id, self._opinions)
            return True

        if await unless_disconnected(self._request, read) is None:
            raise Left


Judging = Annotated[Gateway, Depends()]


def question(text: str, response: str | None = None, *, param: str) -> Conversation | None:
    """A text as a user's question; None where nothing of it shows. `param` names it in errors."""
    if not shows(text):
        return None
    return Conversation([{"role": "user", "content": text}], response, param=param)


def conversation(
    messages: Sequence[RelayedMessage], *, ends_in_response: bool, param: str = "messages"
) -> Conversation | None:
    """Messages of a gateway's; None where the user says nothing. `ends_in_response`: an
    assistant's last message is what is judged as the response, else it is left out.
    """
    response = None
    if messages and messages[-1].role == "assistant":
        response = messages[-1].text if ends_in_response else None
        messages = messages[:-1]
    read = read_by_models(messages)
    if not any(each["role"] == "user" for each in read):
        return None
    return Conversation(read, response, param=param)


def _ask_all(admission: Admission, conversations: Sequence[Conversation]) -> list[Asked]:
    return [ask_to_read(admission, each) for each in conversations]


def _key(artifact_id: str, asked: Asked) -> bytes:
    """Of all that a verdict depends on."""
    (ask,) = asked.asks
    question = None if ask.question is None else ask.question.tokens
    (judgement,) = asked.judgements
    seen = (artifact_id, ask.prompt, question, ask.response, judgement.group, judgement.exclusions)
    return hashlib.sha256(repr(seen).encode()).digest()
