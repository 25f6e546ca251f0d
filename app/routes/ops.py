"""Health, readiness, metrics and the model list."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from prometheus_client.exposition import choose_encoder

from app.errors import ErrorBody
from app.protocol.openai import Model, ModelList
from app.routes.dependencies import AppMetrics, ReadyService

router = APIRouter()
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": ErrorBody, "description": "not yet"}}


@router.get("/health")
async def health() -> dict[str, str]:
    """The process is alive."""
    return {"status": "HEALTHY"}


@router.get("/readyz", responses=_NOT_READY)
async def readyz(service: ReadyService) -> dict[str, Any]:
    """Model and artifact are loaded and match: what is in force."""
    manifest = service.artifact.manifest
    detector = service.artifact.detector
    return {
        "status": "ready",
        "model": service.model_id,
        "artifact": service.artifact.id,
        "scope": manifest.scope,
        "judged": manifest.context.judged,
        "looks": [look.look for look in manifest.looks],
        "mode": service.settings.mode,
        "alpha": detector.alpha,
        "guarantee": detector.guarantee,
        "threshold": detector.threshold,
    }


@router.get("/v1/models", responses=_NOT_READY)
async def models(service: ReadyService) -> ModelList:
    """The one model served."""
    return ModelList(data=[Model(id=service.model_id, created=service.started)])


@router.get("/metrics")
async def metrics(shown: AppMetrics, accept: Annotated[str | None, Header()] = None) -> Response:
    """For Prometheus."""
    encode, content_type = choose_encoder(accept or "")
    return Response(encode(shown.registry), media_type=content_type)
