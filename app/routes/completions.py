"""`POST /v1/completions`: texts gone on from, under no chat template."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.asking.completion import ask_completion
from app.asking.naming import named
from app.chat.generation import Generation
from app.json_body import JsonRoute
from app.routes.answering import answer
from app.routes.dependencies import JudgedEvent, Ready, RequestId, RequestWorkers, SecondOpinions
from app.second_opinion.reconsidered import submit
from app.security import CallerOf, require_may_pick_group
from app.wire.completion import Completion, CompletionRequest
from app.writing.completion import CompletionWriter

router = APIRouter(route_class=JsonRoute)


@router.post(
    "/v1/completions",
    response_model=Completion,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def completions(
    body: CompletionRequest,
    request: Request,
    caller: CallerOf,
    loaded: Ready,
    judged: JudgedEvent,
    request_id: RequestId,
    workers: RequestWorkers,
    opinions: SecondOpinions,
) -> Response:
    """Go on from a text, or from several, guarded."""
    require_may_pick_group(caller, body.trajguard.fields, "trajguard.fields")
    asked = await workers.run(ask_completion, loaded.admission, body)
    with named(lambda text: text.replace("messages", "prompt")):
        steps = submit(loaded, asked, opinions)
    generation = Generation(
        asked, steps, loaded.codec, judged, request_id=request_id, stop_texts=body.stop_texts
    )
    writer = CompletionWriter(
        generation,
        loaded,
        with_logprobs=body.logprobs is not None,
        with_usage=body.stream_options is not None and body.stream_options.include_usage,
        detail=caller.sees_detail,
    )
    return await answer(
        request, generation, writer, stream=bool(body.stream), request_id=request_id
    )
