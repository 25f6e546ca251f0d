"""What the application's routes share."""

from __future__ import annotations

import asyncio

from app.errors import NotReadyError
from app.metrics import Metrics
from app.service import Service
from app.settings import Settings


class State:
    """What the routes share; `service` raises NotReadyError until there is one.

    `loading` is set once loading has ended, well or badly.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.loaded: Service | None = None
        self.reason = "the model is loading: try again shortly"
        self.loading = asyncio.Event()

    @property
    def service(self) -> Service:
        if self.loaded is None:
            raise NotReadyError(f"not ready: {self.reason}")
        return self.loaded
