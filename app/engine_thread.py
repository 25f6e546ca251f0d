"""Between asyncio and the one thread that owns the model."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Sequence

from detector.backend import Ask, Backend, Capacity, Step
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

    def __init__(self, backend: Backend, asks: Sequence[Ask]) -> None:
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Step | EngineError] = asyncio.Queue()
        # The number of tokens that each has made.
        self._open = dict.fromkeys(asks, 0)

    async def __aiter__(self) -> AsyncIterator[Step]:
        while self._open:
            step = await self._queue.get()
            if isinstance(step, EngineError):
                self._open.clear()
                raise step
            if step.ask not in self._open:
                continue
            self._open[step.ask] += step.token is not None
            if step.finish is not None:
                n_tokens = self._open.pop(step.ask)
                if error := _error_of(step, n_tokens):
                    self.close()
                    raise error
            yield step

    def leave(self, ask: Ask) -> None:
        """Cancel one of the requests, if it has not ended; its steps come no more."""
        if ask in self._open:
            del self._open[ask]
            self._backend.cancel(ask)

    def close(self) -> None:
        for ask in tuple(self._open):
            self.leave(ask)

    def put(self, step: Step | EngineError) -> None:
        """From the engine's thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, step)


class EngineThread:
    """Runs a backend on a thread of its own and hands each request's steps to its task."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._open: dict[Ask, Steps] = {}
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
        self._backend.close()

    def capacity(self) -> Capacity:
        return self._backend.capacity()

    def submit(self, asks: Sequence[Ask]) -> Steps:
        """Queue requests, all or none. Raises what `Backend.submit` raises, and EngineError
        when stopping, before anything is promised to the client.
        """
        steps = Steps(self._backend, asks)
        with self._wake:
            if self._stopping:
                raise EngineError(_STOPPED)
            self._backend.submit(*asks)
            self._open |= dict.fromkeys(asks, steps)
            self._wake.notify()
        return steps

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._backend.busy)
                if self._stopping:
                    break
            try:
                for step in self._backend.step():
                    self._deliver(step)
            except Exception as error:
                # The message may quote tensors, so only its type and place are logged.
                place = "".join(traceback.format_tb(error.__traceback__))
                log.error("engine step failed: %s\n%s", type(error).__name__, place)
                self._fail(EngineError(_FAILED))
        self._fail(EngineError(_STOPPED))

    def _deliver(self, step: Step) -> None:
        with self._wake:
            steps = self._open[step.ask]
            if step.finish is not None:
                del self._open[step.ask]
        if step.finish == "failed":
            log.error("a request failed: its logits or hidden states are NaN or infinite")
        steps.put(step)

    def _fail(self, error: EngineError) -> None:
        with self._wake:
            self._backend.abandon()
            for steps in self._open.values():
                steps.put(error)
            self._open.clear()


def _error_of(step: Step, n_tokens: int) -> TrajGuardError | None:
    """What a request's end has to say to the client as an error, if anything."""
    if step.finish == "failed":
        return EngineError(_NAN)
    if step.finish == "expired":
        got = f"made {n_tokens} tokens" if n_tokens else "did not get to its first token"
        return DeadlineError(
            f"the request {got} in its {step.ask.timeout_seconds:g} seconds: allow more time, "
            "lower max_tokens, or try again when the service has less to do",
            param="trajguard.timeout_seconds",
        )
    return None
