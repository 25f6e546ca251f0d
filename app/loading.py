"""What a ready application holds, and how it comes to be: artifact, model, engine.

torch and transformers take seconds to import, so that happens here, while loading.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from app import engines
from app.asking.admission import Admission
from app.at_alpha import detector_of, others_of
from app.engine_thread import EngineThread
from app.errors import NotReadyError
from app.second_opinion.known import require_second_opinion
from app.settings import Settings
from app.steps import Steps
from detector.backend import Backend, Codec
from detector.engine_record import Standing
from detector.errors import ArtifactMismatchError, CheckpointError
from detector.judge import Judge
from detector.manifest import Canaries, Manifest, Place
from detector.trajectory import in_order, look_name

if TYPE_CHECKING:
    from torch import device as Device  # noqa: N812 (a type, and called one)

    from app.asking.asked import Asked
    from detector.artifact import Artifact
    from detector.detector import Detector
    from detector.engine.model.checkpoint import Checkpoint, Identity
    from detector.trajectory import Look

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guard:
    """What an artifact brings to the model that it was calibrated for. `others` are its detector
    at the alphas that a request may ask for. `written` is when its file was, in Unix time, NaN
    where that is not known; `numerics` says which kernels run the model in `dtype`, and `standing`
    how far the false-alarm rate holds there.
    """

    artifact_id: str
    manifest: Manifest
    detector: Detector
    codec: Codec
    others: Mapping[float, Detector] = field(default_factory=dict)
    written: float = math.nan
    numerics: str = ""
    dtype: str = ""
    standing: Standing = "calibrated"

    @property
    def looks(self) -> frozenset[Look]:
        return frozenset(fitted.look for fitted in self.detector.looks)


@dataclass(frozen=True)
class Loaded:
    """What a ready application holds. `stop` ends its engine's thread.

    `model_id` is the name that clients see: never a path of the machine. `dtype` is the one that
    the model runs in; `standing` says how far the false-alarm rate holds there. `started` is in
    seconds of Unix time, as is `artifact_written`. `engine_name` says what runs the model, and on
    what. `looks` are those that the engine takes. `read_guard` reads the
    artifact that the settings name as it is now, and raises as `load` does.
    """

    settings: Settings
    artifact_id: str
    artifact_written: float
    manifest: Manifest
    detector: Detector
    others: Mapping[float, Detector]
    engine_name: str
    model_id: str
    codec: Codec
    judge: Judge
    admission: Admission
    engine: EngineThread
    started: int
    looks: frozenset[Look]
    read_guard: Callable[[], Guard]
    numerics: str = ""
    dtype: str = ""
    standing: Standing = "calibrated"

    @classmethod
    def of(
        cls,
        settings: Settings,
        guard: Guard,
        judge: Judge,
        backend: Backend,
        model_name: str,
        read_guard: Callable[[], Guard],
        engine_name: str,
    ) -> Loaded:
        """Start the thread of a backend whose observer is `judge.observe`."""
        model_id = os.path.basename(model_name.rstrip("/")) or model_name  # noqa: PTH119
        max_length = backend.capacity().max_length
        engine = EngineThread(backend, step_timeout_seconds=settings.step_timeout_seconds)
        engine.start()
        return cls(
            settings=settings,
            artifact_id=guard.artifact_id,
            artifact_written=guard.written,
            engine_name=engine_name,
            manifest=guard.manifest,
            detector=guard.detector,
            others=guard.others,
            model_id=model_id,
            codec=guard.codec,
            judge=judge,
            admission=Admission(settings, guard.manifest, guard.codec, model_id, max_length),
            engine=engine,
            started=int(time.time()),
            looks=guard.looks,
            read_guard=read_guard,
            numerics=guard.numerics,
            dtype=guard.dtype,
            standing=guard.standing,
        )

    def under(self, guard: Guard) -> Loaded:
        """The same model behind another guard. Raises ArtifactMismatchError when that judges
        looks that the running engine does not take.
        """
        if missing := guard.looks - self.looks:
            names = [", ".join(map(look_name, in_order(looks))) for looks in (missing, self.looks)]
            raise ArtifactMismatchError(
                f"the artifact judges at {names[0]}, and the running engine takes the looks "
                f"{names[1]}: restart the service to serve it",
                param="artifact",
            )
        max_length = self.engine.capacity().max_length
        admission = Admission(self.settings, guard.manifest, guard.codec, self.model_id, max_length)
        return replace(
            self,
            artifact_id=guard.artifact_id,
            artifact_written=guard.written,
            manifest=guard.manifest,
            detector=guard.detector,
            others=guard.others,
            codec=guard.codec,
            admission=admission,
            standing=guard.standing,
        )

    @property
    def canaries(self) -> Canaries | None:
        """Those scored in the dtype that the model runs in: another moves every score."""
        return self.manifest.canaries_in(self.dtype)

    def submit(self, asked: Asked) -> Steps:
        """Have it generated and judged. Raises as `EngineThread.submit` does."""
        detector = self.detector if asked.alpha is None else self.others[asked.alpha]
        for ask, judgement in zip(asked.asks, asked.judgements, strict=True):
            judgement.detector = detector
            self.judge.watch(ask, judgement)
        return self.engine.submit(asked.asks)

    def stop(self) -> None:
        self.engine.stop()


class Loading:
    """What becomes of loading; `loaded` raises NotReadyError until there is something, and
    once that takes no requests any more.

    `ended` is set once loading has ended, well or badly.
    """

    def __init__(self) -> None:
        self.result: Loaded | None = None
        self.reason = "the model is loading: try again shortly"
        self.ended = asyncio.Event()
        # What else may keep requests from being taken, and why.
        self.also_unready: Callable[[], str | None] = lambda: None

    @property
    def loaded(self) -> Loaded:
        if self.result is None:
            raise NotReadyError(f"not ready: {self.reason}")
        if (reason := self.result.engine.unready or self.also_unready()) is not None:
            raise NotReadyError(f"not ready: {reason}")
        return self.result


def load(settings: Settings) -> Loaded:
    """Load artifact and model and start. Raises TrajGuardError of any kind but RequestError."""
    from detector import artifact as artifacts

    artifact = artifacts.load(settings.artifact)
    # A bad artifact is told before the seconds that transformers takes to import.
    from detector.engine.model.checkpoint import load_checkpoint
    from detector.engine.model.threads import set_threads

    engines.require_installed(settings)
    set_threads(settings.threads)
    dtype = dtype_of(settings, artifact.manifest)
    try:
        checkpoint = load_checkpoint(settings.model, dtype, engines.loading_device(settings))
    except MemoryError:
        raise CheckpointError(
            f"model {settings.model!r} does not fit in memory: serve a smaller one", param="model"
        ) from None
    return start(settings, artifact, checkpoint)


def start(settings: Settings, artifact: Artifact, checkpoint: Checkpoint) -> Loaded:
    """Start the engine, once it has passed its self-test.

    Raises ArtifactMismatchError when the artifact is not the model's, TooFewQuestionsError
    when it cannot keep the alpha asked for, SelfTestError when the engine does not reproduce
    the model.
    """
    identity, device = checkpoint.identity, engines.running_device(settings, checkpoint)
    guard = guard_of(settings, artifact, identity, device)
    judge = Judge(guard.detector)
    backend = engines.open_backend(settings, checkpoint, guard.looks, judge)

    def read_guard() -> Guard:
        from detector import artifact as artifacts

        return guard_of(settings, artifacts.load(settings.artifact), identity, device)

    engine_name = f"{'torch' if settings.engine == 'own' else settings.engine}-{device.type}"
    return Loaded.of(settings, guard, judge, backend, identity.name, read_guard, engine_name)


def guard_of(
    settings: Settings,
    artifact: Artifact,
    identity: Identity,
    device: Device,
    *,
    judging: Device | None = None,
) -> Guard:
    """An artifact, as the settings want it, on the device that its model runs on, or on that one
    which is `judging`.

    Raises ArtifactMismatchError when it is not the model's or has not what the second opinion needs
    that the settings name, TooFewQuestionsError when it cannot keep the alpha asked for.
    """
    from detector.engine.model.text import Text

    manifest, dtype = artifact.manifest, identity.fingerprint.dtype
    engine = engines.record(settings, device)
    standing = manifest.require(identity.fingerprint, identity.name, engine)
    if standing == "unverified":
        log.warning(
            "artifact %s was calibrated in %s, and %s rounds otherwise: scores move a little, and "
            "nobody has seen how many false alarms there are here; `trajguard revalidate` counts "
            "them",
            artifact.id,
            manifest.place,
            engine,
        )
    place = Place(fingerprint=identity.fingerprint, engine=engine)
    require_second_opinion(settings, manifest, place)
    at = judging or device
    detector = detector_of(settings, artifact).to(at)
    others = {alpha: other.to(at) for alpha, other in others_of(settings, artifact).items()}
    codec = Text(identity.tokenizer, manifest.context.template, manifest.context.text)
    try:
        written = settings.artifact.stat().st_mtime
    except OSError:
        written = math.nan
    told = written, engine.numerics, dtype, standing
    return Guard(artifact.id, manifest, detector, codec, others, *told)


def dtype_of(settings: Settings, manifest: Manifest) -> str:
    """The one to load the model in: asked for, or one that the artifact may be served in."""
    if settings.dtype != "auto":
        return settings.dtype
    return next(iter(manifest.dtypes(settings.engine)), manifest.fingerprint.dtype)
