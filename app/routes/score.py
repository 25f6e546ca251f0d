"""`POST /v1/score`: the verdict on a conversation, without generating anything."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.chat.generation import Generation
from app.routes.dependencies import Admitting, JudgedEvent, RequestId
from app.routes.leaving import LEFT, drained, unless_disconnected
from app.wire.score import ScoreRequest, ScoreResponse
from app.writing.verdict import score_verdict

router = APIRouter()


@router.post("/v1/score", response_model=ScoreResponse)
async def score(
    body: ScoreRequest,
    request: Request,
    loaded: Admitting,
    judged: JudgedEvent,
    request_id: RequestId,
) -> Response:
    """Judge the prompt, and the response if one is given, by one teacher-forced pass."""
    asked = loaded.asking.score(body)
    steps = loaded.submit(asked)
    generation = Generation(asked, steps, loaded.codec, judged, request_id=request_id)
    try:
        pieces = await unless_disconnected(request, lambda: drained(generation.pieces()))
    finally:
        generation.close()
    if pieces is None:
        return Response(status_code=LEFT)
    verdict = score_verdict(
        generation.judgement, asked.mode, loaded.artifact_id, loaded.manifest.context.text
    )
    return JSONResponse(ScoreResponse(model=loaded.model_id, verdict=verdict).model_dump())
