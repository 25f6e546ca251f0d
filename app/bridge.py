"""The bridge between asyncio and the one thread that owns the model."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import AsyncIterator

from app.guard import Guard, Judgement
from detector.engine.engine import Engine
from detector.engine.request import Request, Step
from detector.errors import EngineError

log = logging.getLogger(__name__)

_FAILED = "the engine failed on this request's batch: try again; the service log has details"
_STOPPED = "the service is shutting down: try again on another replica"


class Steps:
    """One request's steps as they come, for one asyncio task.

    Iterate to the end, or call `close` to cancel what is left.
    """

    def __init__(self, bridge: Bridge, judgement: Judgement) -> None:
        self.judgement = judgement
        self._bridge = bridge
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Step | EngineError] = asyncio.Queue()
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[Step]:
        while not self._ended:
            step = await self._queue.get()
            if isinstance(step, EngineError):
                self._ended = True
                raise step
            self._ended = step.finish is not None
            yield step

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._bridge.cancel(self)

    def put(self, step: Step | EngineError) -> None:
        """From the engine's thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, step)


class Bridge:
    """Runs an engine on a thread of its own and hands each request's steps to its task."""

    def __init__(self, engine: Engine, guard: Guard) -> None:
        self.engine = engine
        self._guard = guard
        self._open: dict[Request, Steps] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step; requests still open get EngineError."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        self.engine.close()

    def submit(self, judgement: Judgement) -> Steps:
        """Queue a request. Raises what `Engine.submit` raises, and EngineError when
        stopping, before anything is promised to the client.
        """
        steps = Steps(self, judgement)
        with self._wake:
            if self._stopping:
                raise EngineError(_STOPPED)
            self._guard.watch(judgement)
            self._open[judgement.request] = steps
            try:
                self.engine.submit(judgement.request)
            except BaseException:
                self._forget(judgement.request)
                raise
            self._wake.notify()
        return steps

    def cancel(self, steps: Steps) -> None:
        self.engine.cancel(steps.judgement.request)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self.engine.busy)
                if self._stopping:
                    break
            try:
                for step in self.engine.step():
                    self._deliver(step)
            except Exception as error:
                # The message may quote tensors, so only its type and place are logged.
                place = "".join(traceback.format_tb(error.__traceback__))
                log.error("engine step failed: %s\n%s", type(error).__name__, place)
                self._fail(EngineError(_FAILED))
        self._fail(EngineError(_STOPPED))

    def _deliver(self, step: Step) -> None:
        steps = self._open[step.request]
        if step.finish is not None:
            self._forget(step.request)
        steps.put(step)

    def _fail(self, error: EngineError) -> None:
        with self._wake:
            self.engine.abandon()
            for request, steps in list(self._open.items()):
                self._forget(request)
                steps.put(error)

    def _forget(self, request: Request) -> None:
        self._guard.forget(self._open.pop(request).judgement)
