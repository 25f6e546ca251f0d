"""The bridge between asyncio and the one thread that owns the model."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Sequence

from app.guard import Guard, Judgement
from detector.engine.engine import Engine
from detector.engine.request import Request, Step
from detector.errors import DeadlineError, EngineError, TrajGuardError

log = logging.getLogger(__name__)

_FAILED = "the engine failed on this request's batch: try again; the service log has details"
_STOPPED = "the service is shutting down: try again on another replica"
_NAN = (
    "the model's numbers for this request are NaN or infinite, so no token can be drawn: "
    "use milder penalties, if it names any, or word it otherwise"
)


class Steps:
    """The steps of requests submitted together, as they come, for one asyncio task.

    Iterate to the end of all of them, or call `close` to cancel what is left. When one of
    them fails or passes its deadline, the others are cancelled and its error is raised.
    """

    def __init__(self, bridge: Bridge, judgements: Sequence[Judgement]) -> None:
        self._bridge = bridge
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Step | EngineError] = asyncio.Queue()
        self._open = {judgement.request for judgement in judgements}

    async def __aiter__(self) -> AsyncIterator[Step]:
        while self._open:
            step = await self._queue.get()
            if isinstance(step, EngineError):
                self._open.clear()
                raise step
            if step.request not in self._open:
                continue
            if step.finish is not None:
                self._open.discard(step.request)
                if error := _error_of(step):
                    self.close()
                    raise error
            yield step

    def leave(self, request: Request) -> None:
        """Cancel one of the requests, if it has not ended; its steps come no more."""
        if request in self._open:
            self._open.discard(request)
            self._bridge.engine.cancel(request)

    def close(self) -> None:
        for request in tuple(self._open):
            self.leave(request)

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

    def submit(self, *judgements: Judgement) -> Steps:
        """Queue requests, all or none. Raises what `Engine.submit` raises, and EngineError
        when stopping, before anything is promised to the client.
        """
        steps = Steps(self, judgements)
        requests = [judgement.request for judgement in judgements]
        with self._wake:
            if self._stopping:
                raise EngineError(_STOPPED)
            for judgement in judgements:
                self._guard.watch(judgement)
                self._open[judgement.request] = steps
            try:
                self.engine.submit(*requests)
            except BaseException:
                for request in requests:
                    self._forget(request)
                raise
            self._wake.notify()
        return steps

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
        if step.finish == "failed":
            log.error("a request failed: its logits or hidden states are NaN or infinite")
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
        del self._open[request]
        self._guard.forget(request)


def _error_of(step: Step) -> TrajGuardError | None:
    """What a request's end has to say to the client as an error, if anything."""
    request = step.request
    if step.finish == "failed":
        return EngineError(_NAN)
    if step.finish == "expired":
        n = len(request.generated)
        got = f"made {n} tokens" if n else "did not get to its first token"
        return DeadlineError(
            f"the request {got} in its {request.timeout_seconds:g} seconds: allow more time, "
            "lower max_tokens, or try again when the service has less to do",
            param="trajguard.timeout_seconds",
        )
    return None
