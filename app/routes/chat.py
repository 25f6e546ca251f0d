"""`POST /v1/chat/completions`, as JSON or as server-sent events."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.asking.chat import ask_chat
from app.chat.generation import Generation
from app.json_body import JsonRoute
from app.routes.answering import answer
from app.routes.dependencies import JudgedEvent, Ready, RequestId, RequestWorkers, SecondOpinions
from app.second_opinion.reconsidered import submit
from app.security import CallerOf, require_may_pick_group
from app.wire.chat_request import ChatRequest
from app.wire.chat_response import ChatCompletion
from app.writing.chat import ChatWriter

router = APIRouter(route_class=JsonRoute)


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def chat_completions(
    body: ChatRequest,
    request: Request,
    caller: CallerOf,
    loaded: Ready,
    judged: JudgedEvent,
    request_id: RequestId,
    workers: RequestWorkers,
    opinions: SecondOpinions,
) -> Response:
    """Answer a conversation, guarded."""
    require_may_pick_group(caller, body.trajguard.fields, "trajguard.fields")
    run = workers.run_slow if body.is_held else workers.run
    asked = await run(ask_chat, loaded.admission, body)
    steps = submit(loaded, asked, opinions)
    generation = Generation(
        asked,
        steps,
        loaded.codec,
        judged,
        request_id=request_id,
        stop_texts=body.stop_texts,
        may_call=body.may_call,
    )
    writer = ChatWriter(generation, loaded, body, detail=caller.sees_detail)
    return await answer(
        request, generation, writer, stream=bool(body.stream), request_id=request_id
    )
