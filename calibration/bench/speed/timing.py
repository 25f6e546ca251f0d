"""Timing: what scoring one trajectory costs on one CPU thread, and what fitting costs."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.artifact import Artifact
from detector.detector import Detector
from detector.fitted_look import Part, fit_look
from detector.gaussian import LayerGaussians
from detector.planes import Planes
from detector.scores import SCORES, FittedScore
from detector.trajectory import PROMPT, Look

_REPEATS = 30


@dataclass(frozen=True)
class Timing:
    """Median milliseconds a trajectory, scored alone and in a batch of 32."""

    name: str
    alone: float
    batched: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.alone:.2f} ms alone, {self.batched:.2f} ms each in a batch of 32"
        )


def _median_ms(work: Callable[[], object]) -> float:
    for _ in range(3):
        work()
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def _random_score(n_planes: int, width: int, rank: int) -> FittedScore:
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(n_planes, rank, width, generator=generator) / width**0.5
    gaussians = LayerGaussians(
        mean=torch.randn(n_planes, width, generator=generator),
        basis=basis,
        weight=torch.full((n_planes, rank), 0.9),
        variance=torch.ones(n_planes),
    )
    return FittedScore(SCORES["mahalanobis"], 0, gaussians)


def fit_cost(n: int = 5000, n_planes: int = 33, width: int = 4096, rank: int = 256) -> str:
    """Seconds and peak memory of fitting one look to random trajectories of a 7B-class model,
    with torch's own number of threads.
    """
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -2, width)
    trajectories = torch.empty(n, n_planes, width)
    for plane in range(n_planes):
        trajectories[:, plane] = torch.randn(n, width, generator=generator) * spread
    began = time.perf_counter()
    fit_look(PROMPT, [Part(PROMPT)], Planes.of(trajectories), rank)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return (
        f"fit of {n} trajectories of {n_planes} x {width} at rank {rank}: {seconds:.1f} s, peak "
        f"{peak:.1f} GB, {torch.get_num_threads()} threads"
    )


@torch.inference_mode()
def timings(artifact: Artifact) -> list[Timing]:
    """A 7B-class model's trajectory (33 planes x 4096, rank 256), then the artifact's own,
    with its verdict. Sets torch to one thread.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    large = _random_score(33, 4096, 256)
    one, many = (torch.randn(n, 33, 4096, generator=generator) for n in (1, 32))
    rows = [
        Timing(
            "33 x 4096 at rank 256",
            _median_ms(lambda: large.score(one)),
            _median_ms(lambda: large.score(many)) / 32,
        )
    ]
    detector, manifest = artifact.detector, artifact.manifest
    shape = (manifest.n_layers + 1, manifest.hidden_size)
    one, many = (torch.randn(n, *shape, generator=generator) for n in (1, 32))

    def with_verdict(what: str, guard: Detector, look: Look) -> Timing:
        def judge(trajectories: Tensor) -> None:
            for scores in guard.score(look, trajectories):
                guard.judge(scores)

        return Timing(
            f"{manifest.model_name}, {shape[0]} x {shape[1]}, {what}",
            _median_ms(lambda: judge(one)),
            _median_ms(lambda: judge(many)) / 32,
        )

    rows.append(with_verdict("score and verdict", detector, detector.looks[0].look))
    for highest in (0, 2, 5):
        wide = _with_every_score(detector, *shape, highest)
        what = f"all {len(wide.looks)} scores of orders up to {highest}, and verdict"
        rows.append(with_verdict(what, wide, PROMPT))
    return rows


def _with_every_score(detector: Detector, n_planes: int, width: int, highest: int) -> Detector:
    """A detector of every score that the model's trajectories can carry, of every order up to
    `highest`, at one look, at the artifact's own rank.
    """
    ranks = [
        f.score.learned.rank for f in detector.looks if isinstance(f.score.learned, LayerGaussians)
    ]
    generator = torch.Generator().manual_seed(0)
    fit, conformal = (
        Planes.of(torch.randn(n, n_planes, width, generator=generator)) for n in (200, 40)
    )
    background = {PROMPT: Planes.of(torch.randn(100, n_planes, width, generator=generator))}
    parts = [
        Part(PROMPT, name, order)
        for name, score in SCORES.items()
        for order in score.orders
        if order <= highest and score.fewest_layers(order) < n_planes
    ]
    return Detector.fit(
        {PROMPT: fit},
        {PROMPT: conformal},
        parts=parts,
        background=background,
        rank=max(ranks, default=128),
    )
