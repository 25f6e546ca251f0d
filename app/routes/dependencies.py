"""What routes ask for: what is loaded, the metrics, who is told of verdicts, the request's id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Request

from app.calls import Calls
from app.json_body import Workers
from app.judging import Judged
from app.loading import Loaded, Loading
from app.metrics import Metrics
from app.page.showing import Showing
from app.reloading import Reloading
from app.second_opinion.opinions import Opinions
from app.watching.watching import Watching


@dataclass(frozen=True)
class State:
    """What the application keeps for its routes; `showing` where there is a page."""

    loading: Loading
    metrics: Metrics
    judged: Callable[[Judged], None]
    reloading: Reloading
    workers: Workers
    watching: Watching
    # An admin's action, and the id of the request and of the key that asked for it.
    acted: Callable[[str, str, str | None], None]
    opinions: Opinions
    showing: Showing | None = None
    calls: Calls = field(default_factory=Calls)


def state_of(request: Request) -> State:
    state: State = request.app.state.trajguard
    return state


def _loaded(request: Request) -> Loaded:
    return state_of(request).loading.loaded


def _metrics(request: Request) -> Metrics:
    return state_of(request).metrics


def _judged(request: Request) -> Callable[[Judged], None]:
    """With what is known of the request beside what came of it."""
    state, caller = state_of(request), request.state.caller
    loaded = state.loading.loaded

    def judged(event: Judged) -> None:
        state.judged(
            replace(event, key_id=caller.key_id, model=loaded.model_id, artifact=loaded.artifact_id)
        )

    return judged


def _workers(request: Request) -> Workers:
    return state_of(request).workers


def _opinions(request: Request) -> Opinions:
    return state_of(request).opinions


def _calls(request: Request) -> Calls:
    return state_of(request).calls


def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


Ready = Annotated[Loaded, Depends(_loaded)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]
JudgedEvent = Annotated[Callable[[Judged], None], Depends(_judged)]
RequestId = Annotated[str, Depends(_request_id)]
RequestWorkers = Annotated[Workers, Depends(_workers)]
SecondOpinions = Annotated[Opinions, Depends(_opinions)]
OpenCalls = Annotated[Calls, Depends(_calls)]
