"""`POST /v1/score`: the verdict on a conversation, without generating anything."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BeforeValidator

from app.asking.score import ask_score
from app.json_body import JsonRoute
from app.routes.dependencies import JudgedEvent, Ready, RequestId, RequestWorkers, SecondOpinions
from app.routes.leaving import LEFT, unless_disconnected
from app.scoring import score as score_all
from app.security import CallerOf, require_may_explain, require_may_pick_group
from app.wire.score import ScoreRequest, ScoreResponse
from app.writing.explanation import verdict_explanation
from app.writing.verdict import score_verdict

router = APIRouter(route_class=JsonRoute)

Explain = Annotated[
    bool,
    # `?explain` alone asks for it too.
    BeforeValidator(lambda value: True if value == "" else value),
    Query(description="say why: layers, nearest calibration questions, out-of-scope kind"),
]


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
    explain: Explain = False,
) -> Response:
    """Judge the prompt, and the response if one is given, by one teacher-forced pass."""
    require_may_pick_group(caller, body.fields, "fields")
    if explain or body.explain:
        require_may_explain(caller)
        body = body.model_copy(update={"explain": True})
    asked = await workers.run(ask_score, loaded.admission, body)

    async def read() -> bool:
        await score_all(loaded, [asked], judged, request_id, opinions)
        return True

    if await unless_disconnected(request, read) is None:
        return Response(status_code=LEFT)
    judgement = asked.judgements[0]
    verdict = score_verdict(
        judgement,
        asked.modes,
        loaded.artifact_id,
        loaded.manifest.context.text,
        detail=caller.sees_detail,
    )
    why = None
    if body.explain and judgement.verdict is not None:
        why = await workers.run(
            verdict_explanation,
            loaded,
            judgement.verdict,
            judgement.places,
            texts=caller.is_trusted,
        )
    said = ScoreResponse(model=loaded.model_id, verdict=verdict, explanation=why)
    return JSONResponse(said.model_dump())
