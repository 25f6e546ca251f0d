"""What routes ask for: what is loaded, the metrics, who is told of verdicts, the request's id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.judging import Judged
from app.loading import Loaded, Loading
from app.metrics import Metrics
from app.reloading import Reloading


@dataclass(frozen=True)
class State:
    """What the application keeps for its routes."""

    loading: Loading
    metrics: Metrics
    judged: Callable[[Judged], None]
    reloading: Reloading


def state_of(request: Request) -> State:
    state: State = request.app.state.trajguard
    return state


def _loaded(request: Request) -> Loaded:
    return state_of(request).loading.loaded


def _loaded_with_room(request: Request) -> Loaded:
    """Before the body is validated, which costs more than a refusal should."""
    loaded = _loaded(request)
    loaded.engine.require_room()
    return loaded


def _metrics(request: Request) -> Metrics:
    return state_of(request).metrics


def _judged(request: Request) -> Callable[[Judged], None]:
    return state_of(request).judged


def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


Ready = Annotated[Loaded, Depends(_loaded)]
Admitting = Annotated[Loaded, Depends(_loaded_with_room)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]
JudgedEvent = Annotated[Callable[[Judged], None], Depends(_judged)]
RequestId = Annotated[str, Depends(_request_id)]
