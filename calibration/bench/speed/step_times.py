"""Times of the engine's steps, guarded at every look and unguarded, interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from calibration.bench.speed.contenders import ANY_TOKEN, judge_of
from calibration.bench.speed.throughput import every_look_guard
from detector.backend import Ask
from detector.detector import Detector
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint, best_device

ROUNDS = 5
_N_STEPS = {"cpu": 4, "cuda": 32}
"""So many are timed together: on a GPU they are short, and three looks fall into these."""


def decode_ms(engine: Engine, n: int, prompt: tuple[int, ...]) -> float:
    """Milliseconds of a step in which `n` running requests decode and none is prefilled."""
    n_steps = _N_STEPS[best_device().type]
    for _ in range(n):
        engine.submit(Ask(prompt, max_tokens=4 * n_steps, sampling=ANY_TOKEN))
    while engine.capacity().n_waiting:
        engine.step()
    engine.step()
    began = time.perf_counter()
    for _ in range(n_steps):
        engine.step()
    milliseconds = 1000 * (time.perf_counter() - began) / n_steps
    engine.abandon()
    return milliseconds


def prefill_ms(engine: Engine, prompt: tuple[int, ...]) -> float:
    """Milliseconds that a prompt alone takes, looks included."""
    began = time.perf_counter()
    engine.submit(Ask(prompt, response=()))
    while engine.busy:
        engine.step()
    return 1000 * (time.perf_counter() - began)


def medians(
    checkpoint: Checkpoint, n: int, length: int, measure: Callable[[Engine], float]
) -> tuple[float, float]:
    """Guarded and unguarded, in engines of `n` slots for prompts of `length` positions."""
    detector = every_look_guard(checkpoint)
    found: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS):
        for guarded in (True, False) if number % 2 else (False, True):
            engine = _engine(checkpoint, detector if guarded else None, n, length)
            try:
                measure(engine)
                found[guarded].append(measure(engine))
            finally:
                engine.close()
    return statistics.median(found[True]), statistics.median(found[False])


def _engine(checkpoint: Checkpoint, detector: Detector | None, n: int, length: int) -> Engine:
    return Engine(
        checkpoint,
        looks={fitted.look for fitted in detector.looks} if detector else (),
        observer=judge_of(detector, checkpoint).observe if detector else None,
        n_slots=n,
        max_length=length + 4 * _N_STEPS[best_device().type],
        prefill_tokens=max(512, length),
    )
