"""`POST /v1/responses`: OpenAI's newer contract for conversations. Nothing is stored."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.asking.naming import named
from app.asking.responses import ask_response, in_words_of
from app.chat.generation import Generation
from app.json_body import JsonRoute
from app.routes.answering import answer
from app.routes.dependencies import JudgedEvent, Ready, RequestId, RequestWorkers, SecondOpinions
from app.second_opinion.reconsidered import submit
from app.security import CallerOf, require_may_pick_group
from app.wire.responses import ResponseObject, ResponsesRequest
from app.writing.responses import ResponseWriter

router = APIRouter(route_class=JsonRoute)


@router.post(
    "/v1/responses",
    response_model=ResponseObject,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def responses(
    body: ResponsesRequest,
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
    run = workers.run if body.format.type == "text" else workers.run_slow
    asked = await run(ask_response, loaded.admission, body)
    with named(lambda text: in_words_of(body, text)):
        steps = submit(loaded, asked, opinions)
    generation = Generation(
        asked, steps, loaded.codec, judged, request_id=request_id, stop_texts=body.stop_texts
    )
    writer = ResponseWriter(generation, loaded, body, detail=caller.sees_detail)
    return await answer(
        request, generation, writer, stream=bool(body.stream), request_id=request_id
    )
