"""A recorded backend: the real schedule, and tokens and scores from a script in place of a
model. With it the application runs without torch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI

from app.loading import Guard, Loaded
from app.main import create_app
from app.settings import Settings
from detector.backend import (
    Ask,
    Capacity,
    Finish,
    Observer,
    Step,
    TokenLogprobs,
)
from detector.engine.run import Run
from detector.engine.schedule import Schedule
from detector.engine.work import Chunk, Decode, Prefill, Resume
from detector.judge import Judge
from detector.manifest import Context, Fingerprint, LookManifest, Manifest, Splits
from detector.trajectory import END, Look, in_order, look_name, parse_look, stage, taken_at
from detector.verdict import LookScore, Verdict
from tests.app.recorded_codec import RecordedCodec

if TYPE_CHECKING:
    from detector.detector import Detector

THRESHOLD = 1.0
END_TOKEN = 0
RESPONSE = "Tove has 18 eggs, which is 12 fewer than 30."

Respond = Callable[[Ask], Sequence[int]]
"""The tokens of the response to a request."""

Scores = Callable[[Ask, Look], float]
"""The standardised score of a request at a look."""


LAYERS = (0, 1, 2)


class RecordedBand:
    """Stands in for a tensor (5, layers): the same at each layer."""

    def tolist(self) -> list[list[float]]:
        return [[level] * len(LAYERS) for level in (-2.0, -0.5, 0.0, 0.5, 2.0)]


class RecordedDefinition:
    summarise: object = None


class RecordedScore:
    definition = RecordedDefinition()

    def layers(self, n_layers: int) -> tuple[int, ...]:
        return LAYERS


@dataclass(frozen=True)
class RecordedPart:
    score_name: str = "recorded"


@dataclass(frozen=True)
class _FittedLook:
    look: Look
    part: RecordedPart = field(default_factory=RecordedPart)
    score: RecordedScore = field(default_factory=RecordedScore)
    band: RecordedBand = field(default_factory=RecordedBand)


@dataclass(frozen=True)
class RecordedCalibration:
    """Of scores that are evenly spread from `lowest` to 1 more."""

    lowest: float = -0.5

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        return [self.lowest + share for share in shares]


@dataclass
class RecordedDetector:
    """Stands in for `Detector`: its trajectories are the scores themselves."""

    looks: tuple[_FittedLook, ...]
    alpha: float = 0.05
    guarantee: str = "marginal"
    threshold: float = THRESHOLD
    calibration: RecordedCalibration = RecordedCalibration()
    groups: Mapping[str, float] = field(default_factory=dict)
    neighbours: Any = None

    def flag_rate_bound(self) -> float:
        return self.alpha

    def score(self, look: Look, trajectories: Sequence[float]) -> list[list[LookScore]]:
        return [
            [LookScore(look, "recorded", each, each, (each,) * len(LAYERS))]
            for each in trajectories
        ]

    def judge(self, looks: Sequence[LookScore], group: str | None = None) -> Verdict:
        counted = [look for look in looks if look.excluded is None]
        group = group if group in self.groups else None
        threshold = self.threshold if group is None else self.groups[group]
        scored = [look for look in counted if not look.failure]
        failed = [look for look in counted if look.failure]
        if not counted or (failed and not any(look.score > threshold for look in scored)):
            at = stage(failed[-1].look) if failed else None
            return Verdict(None, None, None, threshold, self.alpha, at, tuple(looks), group)
        highest = max(scored, key=lambda look: look.score)
        is_ood = highest.score > threshold
        shown = highest if is_ood else counted[-1]
        return Verdict(
            is_ood,
            highest.score,
            0.01 if is_ood else 0.5,
            threshold,
            self.alpha,
            stage(shown.look),
            tuple(looks),
            group,
        )


class RecordedBackend:
    """Gives every request the same tokens, or those that it is told of each, as far as its
    max_tokens let it.
    """

    def __init__(
        self,
        observer: Observer,
        looks: Sequence[Look],
        scores: Scores,
        tokens: Sequence[int] | Respond,
        *,
        n_slots: int,
        max_length: int,
        max_queue: int,
        max_queue_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        self._observer = observer
        self._looks = frozenset(looks)
        self._scores = scores
        self._tokens = tokens
        self._schedule = Schedule(
            self._looks,
            n_slots=n_slots,
            max_length=max_length,
            max_queue=max_queue,
            max_queue_tokens=max_queue_tokens,
            prefill_tokens=64,
            alone=False,
            n_tokens=256,
            clock=clock,
        )
        self._steps: list[Step] = []

    def submit(self, *asks: Ask) -> None:
        self._schedule.add(asks)

    def cancel(self, ask: Ask) -> None:
        self._schedule.cancel(ask)

    @property
    def busy(self) -> bool:
        return self._schedule.busy

    def capacity(self) -> Capacity:
        return self._schedule.capacity()

    def step(self) -> list[Step]:
        self._steps = []
        for run, finish in self._schedule.overdue().items():
            self._end(run, finish)
        match self._schedule.next():
            case Prefill(rows):
                started = [row.run for row in rows if row.starts_response]
                self._schedule.start(started)
                ended = {row.run for row in rows if self._ends(row.run, row.looks)}
                for run in dict.fromkeys(row.run for row in rows):
                    self._after(run, starts=run in started, refused=run in ended)
            case Resume(runs):
                self._schedule.start(runs)
                for run in runs:
                    self._emit(run, refused=False)
            case Chunk(row, _, stop, is_last):
                run, ended_here = row.run, stop == len(row.ids)
                run.n_cached = 0 if ended_here and not row.starts_response else stop
                if ended_here:
                    if row.starts_response:
                        self._schedule.start([run])
                    refused = self._ends(run, row.looks)
                    if is_last or run.ask.response is None:
                        self._after(run, starts=row.starts_response, refused=refused)
            case Decode(runs):
                for run in runs:
                    due = self._due(len(run.generated) + 1)
                    self._emit(run, refused=self._ends(run, due))
        return self._steps

    def _due(self, n_tokens: int) -> list[Look]:
        return [look for look in in_order(self._looks) if taken_at(look) == n_tokens]

    def abandon(self) -> None:
        self._schedule.clear()

    def close(self) -> None: ...

    def _ends(self, run: Run, looks: Any) -> bool:
        """Whether the observer ends a request at any of these looks."""
        shown = [
            self._observer(look, [run.ask], cast("Any", [self._scores(run.ask, look)]))[0]
            for look in in_order(looks)
        ]
        return any(shown)

    def _after(self, run: Run, *, starts: bool, refused: bool) -> None:
        """A prompt or trace was prefilled whole and judged."""
        if run.ask.response is not None:
            self._end(run, "traced")
        elif starts:
            self._emit(run, refused=refused)
        elif refused:
            self._end(run, "judged")

    def _emit(self, run: Run, *, refused: bool) -> None:
        if refused:
            self._end(run, "judged")
            return
        tokens = self._tokens(run.ask) if callable(self._tokens) else self._tokens
        token = tokens[len(run.generated) % len(tokens)]
        run.generated.append(token)
        finish: Finish | None = None
        if token == END_TOKEN and not run.ask.sampling.ignore_eos:
            finish = "stop"
        elif len(run.generated) >= run.ask.max_tokens:
            finish = "length"
        if finish is None:
            self._steps.append(run.step(token, logprobs=_logprobs(run.ask, token)))
        elif END in self._looks and self._ends(run, [END]):
            self._end(run, "judged")
        else:
            self._end(run, finish, token)

    def _end(self, run: Run, finish: Finish, token: int | None = None) -> None:
        run.finish = finish
        logprobs = None if token is None else _logprobs(run.ask, token)
        self._steps.append(run.step(token, finish, logprobs))
        self._schedule.end(run)


def _logprobs(ask: Ask, token: int) -> TokenLogprobs | None:
    if ask.n_logprobs is None:
        return None
    return TokenLogprobs(token, -0.5, ((token, -0.5),) * ask.n_logprobs)


def recorded_manifest(looks: Sequence[str], context: Context, **fields: Any) -> Manifest:
    return Manifest(
        scope="recorded",
        model_name="recorded",
        n_layers=1,
        hidden_size=1,
        fingerprint=Fingerprint.model_construct(dtype="float32"),
        context=context,
        looks=tuple(LookManifest(look=look, score="mahalanobis", order=0) for look in looks),
        alpha=0.05,
        guarantee="marginal",
        splits=Splits(fit=1, conformal=1, holdout=1),
        sources=(),
        **fields,
    )


def in_scope(ask: Ask, look: Look) -> float:
    return 0.0


def recorded_load(
    *,
    looks: Sequence[str] = ("prompt", "4"),
    scores: Scores = in_scope,
    response: str | Respond = RESPONSE,
    context: Context | None = None,
    groups: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
    manifest: Mapping[str, Any] | None = None,
    read_guard: Callable[[], Guard] | None = None,
) -> Callable[[Settings], Loaded]:
    """What loads a recorded backend, calibrated by `context`; reloads `read_guard`."""
    parsed = [parse_look(look) for look in looks]
    detector = RecordedDetector(tuple(map(_FittedLook, parsed)), groups=groups or {})

    def load(settings: Settings) -> Loaded:
        judge = Judge(cast("Detector", detector))
        backend = RecordedBackend(
            judge.observe,
            parsed,
            scores,
            [*response.encode(), END_TOKEN] if isinstance(response, str) else response,
            n_slots=settings.n_slots,
            max_length=settings.max_length,
            max_queue=settings.max_queue,
            max_queue_tokens=settings.max_queue_tokens,
            clock=clock,
        )
        written = recorded_manifest(
            [look_name(look) for look in parsed], context or Context(), **(manifest or {})
        )
        guard = Guard(
            "recorded-id",
            written,
            cast("Detector", detector),
            RecordedCodec(),
            written=time.time(),
            dtype=written.fingerprint.dtype,
        )
        read = read_guard or (lambda: guard)
        return Loaded.of(settings, guard, judge, backend, "recorded", read, "recorded")

    return load


def recorded_settings(**settings: object) -> Settings:
    return Settings.model_validate({"max_length": 512, **settings})


def recorded_app(
    *,
    looks: Sequence[str] = ("prompt", "4"),
    scores: Scores = in_scope,
    response: str | Respond = RESPONSE,
    context: Context | None = None,
    groups: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
    manifest: Mapping[str, Any] | None = None,
    read_guard: Callable[[], Guard] | None = None,
    engine_died: Callable[[], None] = lambda: None,
    **settings: object,
) -> FastAPI:
    """An application over a recorded backend, calibrated by `context`; reloads `read_guard`."""
    load = recorded_load(
        looks=looks,
        scores=scores,
        response=response,
        context=context,
        groups=groups,
        clock=clock,
        manifest=manifest,
        read_guard=read_guard,
    )
    return create_app(recorded_settings(**settings), load=load, engine_died=engine_died)


def ticking() -> Callable[[], float]:
    """A clock on which every look at it takes a second."""
    return itertools.count().__next__
