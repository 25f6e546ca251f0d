"""When to come back to a full queue, told from how fast the engine has worked."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

LEAST_SECONDS = 1
MOST_SECONDS = 60
"""OpenAI's clients do not obey a `Retry-After` of more."""

_N_REMEMBERED = 64


class RetryAfter:
    """Estimates `Retry-After`. Clients that are refused one after another are told to come
    back one after another, as places become free, so that they do not all come at once.

    `worked` is the engine's thread's, `seconds` may be called from any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Of the last steps that ended any: at how many seconds of work, and how many. Idle time
        # says nothing.
        self._worked_seconds = 0.0
        self._ended: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=_N_REMEMBERED)
        self._last_return = -math.inf

    def worked(self, seconds: float, n_ended: int) -> None:
        """The engine has worked so long, and so many requests have ended by it."""
        with self._lock:
            self._worked_seconds += seconds
            if n_ended:
                self._ended.append((self._worked_seconds, n_ended))

    def seconds(self, n_waiting: int) -> int:
        """For the client refused now, while so many requests wait."""
        with self._lock:
            now, each = self._clock(), self._seconds_a_request()
            # With half of the queue served there is room, and still enough to do.
            at = max(now + each * n_waiting / 2, self._last_return + each)
            self._last_return = at = min(at, now + MOST_SECONDS)
            return max(LEAST_SECONDS, math.ceil(at - now))

    def _seconds_a_request(self) -> float:
        (since, _), *others = self._ended
        n = sum(n_ended for _, n_ended in others)
        return (self._worked_seconds - since) / n if n else 0.0
