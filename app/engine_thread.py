"""Between asyncio and the one thread that owns the model.

The thread may fail: a step that raises fails the requests that are open, and the backend is
reset. Where that is of no use (the reset raises too, step after step fails, a step hangs, or
what it raises is no ordinary exception) the engine is dead: all clients are told at once, nothing
is taken any more, and whoever `watch`es it can have the process restarted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress

from app.errors import NotReadyError
from app.retry_after import RetryAfter
from app.steps import Steps
from detector.backend import Ask, Backend, Capacity, Step
from detector.errors import CapacityError, EngineError, TrajGuardError

log = logging.getLogger(__name__)

MOST_FAILED_STEPS = 5
"""So many steps may fail without a request that ends well in between."""

STEP_TIMEOUT_SECONDS = 300.0

_FAILED = "the engine failed on this request's batch: try again; the service log has details"
_STOPPED = "the service is shutting down: try again on another replica"
_ENDED_WELL = {"stop", "length", "judged", "traced"}
_WATCH_SECONDS = 0.25
_DRAIN_SECONDS = 0.05
_STOP_SECONDS = 5.0


class EngineThread:
    """Runs a backend on a thread of its own and hands each request's steps to its task.

    A step that takes more than `step_timeout_seconds` is taken for one that never ends.
    """

    def __init__(
        self, backend: Backend, *, step_timeout_seconds: float = STEP_TIMEOUT_SECONDS
    ) -> None:
        self._backend = backend
        self._step_timeout_seconds = step_timeout_seconds
        self._retry_after = RetryAfter()
        self._open: dict[Ask, Steps] = {}
        # Submitted while the backend is reset, which would forget them.
        self._held: list[Sequence[Ask]] = []
        self._wake = threading.Condition()
        self._stopping = self._draining = self._resetting = False
        self._dead: str | None = None
        self._step_began: float | None = None
        self._n_failed = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # Any thread.

    def start(self) -> None:
        self._thread.start()

    @property
    def unready(self) -> str | None:
        """Why no request is taken, if none is."""
        if self._dead is not None:
            return self._dead
        return _STOPPED if self._draining or self._stopping else None

    @property
    def hangs(self) -> bool:
        """Whether the thread is stuck where nothing can end it but the process's end."""
        return self._dead is not None and self._thread.is_alive()

    def capacity(self) -> Capacity:
        return self._backend.capacity()

    def require_room(self) -> None:
        """Raise what `submit` would raise for any request now: a check that costs nothing, to
        be made before a request is read closely.
        """
        self._require_ready()
        capacity = self._backend.capacity()
        if not capacity.has_room:
            raise CapacityError(
                f"the queue is full ({capacity.n_waiting} requests wait): try again shortly",
                retry_after_seconds=self._retry_after.seconds(capacity.n_waiting),
            )

    def submit(self, asks: Sequence[Ask]) -> Steps:
        """Queue requests, all or none, from their asyncio task. Raises what `Backend.submit`
        raises, and NotReadyError when none is taken, before anything is promised to the client.
        """
        with self._wake:
            self._require_ready()
            if self._resetting:
                self._held.append(asks)
            else:
                self._submit(asks)
            steps = Steps(self._backend, asks)
            self._open |= dict.fromkeys(asks, steps)
            self._wake.notify()
        return steps

    async def watch(self) -> None:
        """Return once the engine is dead, which a step that never ends makes it here."""
        while self._dead is None:
            await asyncio.sleep(min(_WATCH_SECONDS, self._step_timeout_seconds / 4))
            began = self._step_began
            if began is not None and time.monotonic() - began > self._step_timeout_seconds:
                self._die(f"a step has taken over {self._step_timeout_seconds:g} seconds")

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and return once those open have ended or been told that they
        are cut short, after `seconds`.
        """
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:
                    await asyncio.sleep(_DRAIN_SECONDS)
        self._tell(NotReadyError, _STOPPED)

    def stop(self) -> None:
        """End the thread after its current step; requests still open get NotReadyError."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._dead is None:
            self._thread.join(min(_STOP_SECONDS, self._step_timeout_seconds))
        if self._thread.is_alive():
            self._die("its last step does not end")
        elif self._dead is None:
            self._backend.close()

    # The engine's thread.

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._step_began = time.monotonic()
                self._step()
                self._step_began = None
        except BaseException as error:
            self._log("the engine cannot go on", error)
            self._die(f"the engine ended on {type(error).__name__}")
        self._tell(NotReadyError, _STOPPED)

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._over or self._backend.busy)
            return not self._over

    @property
    def _over(self) -> bool:
        return self._stopping or self._dead is not None

    def _step(self) -> None:
        began = time.monotonic()
        try:
            steps = self._backend.step()
            for step in steps:
                self._deliver(step)
        except MemoryError:
            # What is left of the process is not to be relied on.
            raise
        except Exception as error:
            self._log("engine step failed", error)
            self._reset()
        else:
            ended = [step.finish for step in steps if step.finish is not None]
            self._retry_after.worked(time.monotonic() - began, len(ended))
            if not _ENDED_WELL.isdisjoint(ended):
                self._n_failed = 0

    def _deliver(self, step: Step) -> None:
        with self._wake:
            steps = self._open.get(step.ask)
            if step.finish is not None:
                self._open.pop(step.ask, None)
        if step.finish == "failed":
            log.error("a request failed: its logits or hidden states are NaN or infinite")
        if steps is not None:
            steps.put(step)

    def _reset(self) -> None:
        """Clients first: a backend that fails may fail in its reset, or never come back."""
        self._n_failed += 1
        with self._wake:
            self._resetting = True
        self._tell(EngineError, _FAILED)
        if self._n_failed >= MOST_FAILED_STEPS:
            self._die(f"{self._n_failed} steps have failed one after another")
            return
        self._backend.abandon()
        with self._wake:
            self._resetting = False
            held, self._held = self._held, []
            for asks in held:
                self._submit_held(asks)

    def _submit_held(self, asks: Sequence[Ask]) -> None:
        steps = self._open[asks[0]]
        try:
            if steps.waits:
                self._submit(asks)
                return
        except TrajGuardError as error:
            steps.put(error)
        for ask in asks:
            del self._open[ask]

    # Either.

    def _submit(self, asks: Sequence[Ask]) -> None:
        try:
            self._backend.submit(*asks)
        except CapacityError as error:
            n_waiting = self._backend.capacity().n_waiting
            error.retry_after_seconds = self._retry_after.seconds(n_waiting)
            raise

    def _require_ready(self) -> None:
        if (reason := self.unready) is not None:
            raise NotReadyError(f"not ready: {reason}")

    def _die(self, reason: str) -> None:
        with self._wake:
            if self._dead is not None:
                return
            self._dead = f"the engine is dead ({reason}): restart the service"
            self._wake.notify()
        log.critical("%s", self._dead)
        self._tell(EngineError, _FAILED)

    def _tell(self, kind: type[TrajGuardError], message: str) -> None:
        """An error for every client that waits; nothing more comes for them."""
        with self._wake:
            told, self._open, self._held = set(self._open.values()), {}, []
        for steps in told:
            with suppress(RuntimeError):  # the client's loop is closed
                steps.put(kind(message))

    @staticmethod
    def _log(what: str, error: BaseException) -> None:
        # The message may quote tensors, so only its type and place are logged.
        place = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s: %s\n%s", what, type(error).__name__, place)
