"""What only who runs the service may ask: another artifact, or the one before."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.errors import ErrorBody, ForbiddenError
from app.loading import Loaded
from app.reloading import Reloading
from app.routes.dependencies import state_of


def require_admin() -> None:
    """Raises ForbiddenError: nobody is known to be who runs the service."""
    raise ForbiddenError(
        "admin routes are closed: send the process a SIGHUP to reload its artifact"
    )


router = APIRouter(dependencies=[Depends(require_admin)])


class InForce(BaseModel):
    """What requests are judged by from now on."""

    artifact: str
    scope: str
    alpha: float
    threshold: float = Field(description="of questions of no group")


def _reloading(request: Request) -> Reloading:
    return state_of(request).reloading


Reloads = Annotated[Reloading, Depends(_reloading)]

_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody, "description": text}
    for code, text in {
        403: "Who asks is not known to run the service.",
        409: "The artifact in force stays so; the message says why.",
        503: "No model is loaded yet.",
    }.items()
}


@router.post("/admin/reload", responses=_ERRORS)
async def reload(reloading: Reloads) -> InForce:
    """Read the artifact again and judge by it, if all of it is in order."""
    return _in_force(await reloading.reload())


@router.post("/admin/rollback", responses=_ERRORS)
async def rollback(reloading: Reloads) -> InForce:
    """Judge by the artifact that was in force before."""
    return _in_force(await reloading.rollback())


def _in_force(loaded: Loaded) -> InForce:
    return InForce(
        artifact=loaded.artifact_id,
        scope=loaded.manifest.scope,
        alpha=loaded.detector.alpha,
        threshold=loaded.detector.threshold,
    )
