"""What routes ask for: the ready service, the metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.metrics import Metrics
from app.service import Service
from app.state import State


def _state(request: Request) -> State:
    state: State = request.app.state.guard
    return state


def _service(request: Request) -> Service:
    return _state(request).service


def _metrics(request: Request) -> Metrics:
    return _state(request).metrics


ReadyService = Annotated[Service, Depends(_service)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]
