"""`/`: the page, and what its scripts ask for. None of it is part of the API's document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from app.errors import NotReadyError, UnknownRequestError
from app.json_body import JsonRoute
from app.loading import Loading
from app.page.shell import HEADERS, KINDS
from app.page.showing import Showing
from app.routes.dependencies import Ready, RequestWorkers, state_of
from app.routes.leaving import EventStream
from app.security import CallerOf, require_trusted
from app.wire.page import ExplainRequest, Guarding
from app.writing.events import event_of
from app.writing.page import explanation, news

router = APIRouter(include_in_schema=False)
bodies = APIRouter(include_in_schema=False, route_class=JsonRoute)

_APART_SECONDS = 0.5
"""Between two events of a listener, however much is judged."""

_QUIET_SECONDS = 1.0
"""After which a listener for whom nothing has come is looked after: has it left, do we drain?"""

_NO_STORE = {"Cache-Control": "no-store"}
_FOR_GOOD = {"Cache-Control": "public, max-age=31536000, immutable"}
_EACH_TIME = {"Cache-Control": "no-cache"}
"""What the browser keeps it asks about again."""


def _showing(request: Request) -> Showing:
    showing = state_of(request).showing
    assert showing is not None
    return showing


Shown = Annotated[Showing, Depends(_showing)]


@router.head("/")
@router.get("/")
async def page(request: Request, shown: Shown) -> Response:
    """The document, which tells nothing of what is served."""
    shell = shown.shell
    headers = HEADERS | _EACH_TIME | {"ETag": shell.etag}
    if request.headers.get("if-none-match") == shell.etag:
        return Response(status_code=304, headers=headers)
    return Response(shell.document, media_type="text/html", headers=headers)


@router.head("/page/assets/{version}/{name}")
@router.get("/page/assets/{version}/{name}")
async def asset(version: str, name: str, shown: Shown) -> Response:
    """A file of the page's, which never changes under its path."""
    if version != shown.shell.version or name not in shown.shell.assets:
        raise HTTPException(404)
    kind = KINDS[name.rpartition(".")[2]]
    return Response(shown.shell.assets[name], media_type=kind, headers=HEADERS | _FOR_GOOD)


@router.head("/page/guard")
@router.get("/page/guard")
async def guard(loaded: Ready, caller: CallerOf) -> JSONResponse:
    """What is served, and what of it whoever asks may see."""
    guarding = Guarding(
        model=loaded.model_id,
        scope=loaded.manifest.scope,
        artifact=loaded.artifact_id,
        mode=loaded.settings.mode,
        alpha=loaded.detector.alpha if caller.sees_detail else None,
        sees_detail=caller.sees_detail,
        sees_traffic=caller.is_trusted,
    )
    return JSONResponse(guarding.model_dump(), headers=_NO_STORE)


@bodies.post("/page/explain")
async def explain(
    body: ExplainRequest, loaded: Ready, caller: CallerOf, shown: Shown, workers: RequestWorkers
) -> JSONResponse:
    """Why a question was judged as it was, to whoever asked it: the layers of its looks, and the
    question as it was written to be judged.
    """
    for told in shown.recent.of(body.request_id):
        event = told.event
        if event.decision is not None and (event.key_id == caller.key_id or caller.is_trusted):
            explained = await workers.run(
                explanation,
                loaded,
                event,
                body.question,
                detail=caller.sees_detail,
                texts=caller.is_trusted,
            )
            return JSONResponse(explained.model_dump(), headers=_NO_STORE)
    raise UnknownRequestError(
        "no request of this id was judged of late, or not with this key: ask again",
        param="request_id",
    )


@router.get("/page/live", dependencies=[Depends(require_trusted)])
async def live(request: Request, loaded: Ready, shown: Shown) -> Response:
    """What is judged, as it comes; first what is kept of before. Needs a privileged key once keys
    are set: it tells what others' questions came to.
    """
    return EventStream(_news(state_of(request).loading, shown), lambda: None)


@router.head("/page/live", dependencies=[Depends(require_trusted)])
async def live_head(loaded: Ready) -> Response:
    """That there is something to listen to."""
    return Response(media_type="text/event-stream", headers=_EACH_TIME)


async def _news(loading: Loading, shown: Showing) -> AsyncIterator[str]:
    """Ends when the service takes no requests any more, so that it does not wait for listeners."""
    recent, number = shown.recent, 0
    try:
        while True:
            told, number, loaded = recent.after(number), recent.n, loading.loaded
            yield event_of(news(loaded, told, recent.n, shown.drift()))
            # A moment for what comes together, or a listener would be sent a thousand a second.
            await asyncio.sleep(_APART_SECONDS)
            while not await recent.changed(number, _QUIET_SECONDS):
                loaded = loading.loaded  # Raises once there are no more requests to come.
                yield ": quiet\n\n"
    except NotReadyError:
        return


router.include_router(bodies)
