"""`POST /v1/score`: the verdict on a conversation, without generating anything."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.asking.score import ask_score
from app.json_body import JsonRoute
from app.routes.dependencies import JudgedEvent, Ready, RequestId, RequestWorkers, SecondOpinions
from app.routes.leaving import LEFT, unless_disconnected
from app.scoring import score as score_all
from app.security import CallerOf, require_may_pick_group
from app.wire.score import ScoreRequest, ScoreResponse
from app.writing.verdict import score_verdict

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/score", response_model=ScoreResponse)
async def score(
    body: ScoreRequest,
    request: Request,
    caller: CallerOf,
    loaded: Ready,
    judged: JudgedEvent,
    request_id: RequestId,
    workers: RequestWorkers,
    opinions: SecondOpinions,
) -> Response:
    """Judge the prompt, and the response if one is given, by one teacher-forced pass."""
    require_may_pick_group(caller, body.fields, "fields")
    asked = await workers.run(ask_score, loaded.admission, body)

    async def read() -> bool:
        await score_all(loaded, [asked], judged, request_id, opinions)
        return True

    if await unless_disconnected(request, read) is None:
        return Response(status_code=LEFT)
    verdict = score_verdict(
        asked.judgements[0],
        asked.modes,
        loaded.artifact_id,
        loaded.manifest.context.text,
        detail=caller.sees_detail,
    )
    return JSONResponse(ScoreResponse(model=loaded.model_id, verdict=verdict).model_dump())
