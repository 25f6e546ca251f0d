"""`POST /v1/score`: the verdict on a conversation, without generating anything."""

from __future__ import annotations

from fastapi import APIRouter

from app.protocol.score import ScoreRequest, ScoreResponse
from app.protocol.verdict import score_verdict
from app.routes.dependencies import AppMetrics, ReadyService

router = APIRouter()


@router.post("/v1/score")
async def score(body: ScoreRequest, service: ReadyService, metrics: AppMetrics) -> ScoreResponse:
    """Judge the prompt, and the response if one is given, by one teacher-forced pass."""
    judgement = service.guard.prepare(
        [{"role": message.role, "content": message.text} for message in body.messages],
        service.settings.mode,
        response=body.response or "",
        fields=body.fields,
    )
    judgement.request.timeout_seconds = service.settings.timeout_seconds
    steps = service.bridge.submit(judgement)
    async for _ in steps:
        pass
    assert judgement.verdict is not None
    assert judgement.decision is not None
    metrics.judged(judgement.mode, judgement.decision, judgement.verdict)
    metrics.tokens.labels("prompt").inc(len(judgement.request.prompt))
    return ScoreResponse(
        model=service.model_id, verdict=score_verdict(judgement, service.artifact.id)
    )
