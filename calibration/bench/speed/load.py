"""Load: the engine under arrivals, refusals and many requests, on one thread.

Poisson arrivals show what waiting costs, refusals what they save, many requests that
memory stays flat.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from calibration.bench.speed.contenders import ANY_TOKEN, Prompts, judge_of
from calibration.bench.speed.throughput import N_NEW, prompts_of
from detector.artifact import Artifact
from detector.backend import Ask
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import load_checkpoint
from detector.engine.model.text import Text
from detector.trajectory import PROMPT, Look

_N_SLOTS = 32


@dataclass(frozen=True)
class Poisson:
    """Requests that arrive at random at a share of capacity. Times in seconds."""

    n: int
    n_finished: int
    capacity: float
    rate: float
    unloaded: float
    median: float
    p95: float

    def __str__(self) -> str:
        return (
            f"capacity {self.capacity:.2f} requests/s; {self.n} arrivals at {self.rate:.2f}/s: "
            f"{self.n - self.n_finished} lost; time to first token {1000 * self.unloaded:.0f} ms "
            f"unloaded, {1000 * self.median:.0f} ms median, {1000 * self.p95:.0f} ms p95 = "
            f"{self.p95 / self.unloaded:.2f} times the unloaded one"
        )


def _ask(prompt: tuple[int, ...], n_new: int | None = None) -> Ask:
    return Ask(prompt, max_tokens=n_new or N_NEW, sampling=ANY_TOKEN)


def _first_tokens(engine: Engine, arrivals: Sequence[tuple[float, Ask]]) -> tuple[list[float], int]:
    """Seconds from each arrival to its first token, and how many were answered in full;
    arrivals in order, seconds from now.
    """
    waiting = list(reversed(arrivals))
    arrived = {request: at for at, request in arrivals}
    first: dict[Ask, float] = {}
    n_finished = 0
    began = time.perf_counter()
    while waiting or engine.busy:
        now = time.perf_counter() - began
        while waiting and waiting[-1][0] <= now:
            engine.submit(waiting.pop()[1])
        if not engine.busy:
            time.sleep(max(0.0, waiting[-1][0] - now))
            continue
        for step in engine.step():
            first.setdefault(step.ask, time.perf_counter() - began - arrived[step.ask])
            n_finished += step.finish == "length"
    return list(first.values()), n_finished


def _seconds(engine: Engine, requests: Sequence[Ask]) -> float:
    began = time.perf_counter()
    for request in requests:
        engine.submit(request)
    while engine.busy:
        engine.step()
    return time.perf_counter() - began


def poisson(engine: Engine, prompts: Prompts, share: float = 0.7) -> Poisson:
    """Measure capacity with all slots busy, then let the prompts arrive at a share of it."""
    n_slots = engine.capacity().n_slots
    full = [_ask(prompts[n % len(prompts)]) for n in range(3 * n_slots)]
    capacity = len(full) / _seconds(engine, full)
    alone = [_first_tokens(engine, [(0.0, _ask(prompt))])[0][0] for prompt in prompts[:20]]
    draw = random.Random(0)  # noqa: S311 (arrivals, not secrets)
    at, arrivals = 0.0, []
    for prompt in prompts:
        at += draw.expovariate(share * capacity)
        arrivals.append((at, _ask(prompt)))
    waits, n_finished = _first_tokens(engine, arrivals)
    return Poisson(
        n=len(arrivals),
        n_finished=n_finished,
        capacity=capacity,
        rate=share * capacity,
        unloaded=statistics.median(alone),
        median=statistics.median(waits),
        p95=statistics.quantiles(waits, n=20)[-1],
    )


def refusals(make: Callable[[Callable[..., list[bool]]], Engine], prompts: Prompts) -> float:
    """How many times as many in-scope requests are answered in a second when every second
    prompt is refused at its verdict, as when all are decoded.
    """
    seconds = {}
    for refusing in (False, True):
        requests = [_ask(prompt) for prompt in prompts]
        out_of_scope = set(requests[1::2]) if refusing else set()

        def observe(
            look: Look,
            seen: Sequence[Ask],
            trajectories: Tensor,
            refused: set[Ask] = out_of_scope,
        ) -> list[bool]:
            return [request in refused for request in seen]

        engine = make(observe)
        try:
            _seconds(engine, [_ask(prompt, 2) for prompt in prompts[:_N_SLOTS]])
            seconds[refusing] = _seconds(engine, requests)
        finally:
            engine.close()
    return seconds[False] / seconds[True]


def resident_megabytes() -> float:
    """Resident memory of this process, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def memory(engine: Engine, prompts: Prompts, n: int, n_new: int = 8) -> list[float]:
    """Resident megabytes after each tenth of `n` requests."""
    sizes = []
    with tqdm(total=n, desc="memory", unit="request") as progress:
        for _ in range(10):
            batch = [_ask(prompts[k % len(prompts)], n_new) for k in range(n // 10)]
            _seconds(engine, batch)
            progress.update(len(batch))
            sizes.append(resident_megabytes())
    return sizes


def load(artifact: Artifact, model: str, dtype: str, *, n: int, n_memory: int) -> str:
    """Everything measured, as text."""
    checkpoint = load_checkpoint(model, dtype)
    context = artifact.manifest.context
    text = Text(checkpoint.tokenizer, context.template, context.text)
    prompts = prompts_of(text, n)

    def make(observer: Callable[..., list[bool]]) -> Engine:
        return Engine(
            checkpoint,
            # The refusals come at the prompt, whatever else the artifact looks at.
            looks={PROMPT, *(fitted.look for fitted in artifact.detector.looks)},
            observer=observer,
            n_slots=_N_SLOTS,
            max_length=256,
            max_queue=max(n, n_memory),
        )

    engine = make(judge_of(artifact.detector, checkpoint).observe)
    try:
        arrivals = poisson(engine, prompts)
        sizes = memory(engine, prompts, n_memory)
        kept = engine.state_bytes
    finally:
        engine.close()
    ratio = refusals(make, prompts[: 4 * _N_SLOTS])
    config = checkpoint.model.config.get_text_config()
    planes = (config.num_hidden_layers + 1) * config.hidden_size * 4
    return "\n".join(
        [
            f"Poisson arrivals: {arrivals}",
            f"half of the prompts refused: in-scope throughput {ratio:.2f} times that of "
            "decoding all",
            f"state a request: {kept.cache} bytes of keys and values + {kept.trajectory} of "
            f"trajectory = {kept.trajectory / planes:.2f} x (L + 1) x d x 4",
            f"resident memory over {n_memory} requests: "
            + ", ".join(f"{size:.0f}" for size in sizes)
            + " MB",
        ]
    )
