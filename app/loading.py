"""What a ready application holds, and how it comes to be: artifact, model, engine.

torch and transformers take seconds to import, so that happens here, while loading.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.asking import Asking
from app.engine_thread import EngineThread
from app.errors import NotReadyError
from app.settings import Settings
from app.steps import Steps
from detector.backend import Backend, Codec
from detector.errors import CheckpointError
from detector.judge import Judge
from detector.manifest import Manifest

if TYPE_CHECKING:
    from app.asking import Asked
    from detector.artifact import Artifact
    from detector.detector import Detector
    from detector.engine.model.checkpoint import Checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What a ready application holds. `stop` ends its engine's thread.

    `model_id` is the name that clients see: never a path of the machine. `started` is in
    seconds of Unix time.
    """

    settings: Settings
    artifact_id: str
    manifest: Manifest
    detector: Detector
    model_id: str
    codec: Codec
    judge: Judge
    asking: Asking
    engine: EngineThread
    started: int

    @classmethod
    def of(
        cls,
        settings: Settings,
        artifact_id: str,
        manifest: Manifest,
        judge: Judge,
        codec: Codec,
        backend: Backend,
        model_name: str,
    ) -> Loaded:
        """Start the thread of a backend whose observer is `judge.observe`."""
        model_id = os.path.basename(model_name.rstrip("/")) or model_name  # noqa: PTH119
        max_length = backend.capacity().max_length
        engine = EngineThread(backend, step_timeout_seconds=settings.step_timeout_seconds)
        engine.start()
        return cls(
            settings=settings,
            artifact_id=artifact_id,
            manifest=manifest,
            detector=judge.detector,
            model_id=model_id,
            codec=codec,
            judge=judge,
            asking=Asking(settings, manifest, codec, model_id, max_length),
            engine=engine,
            started=int(time.time()),
        )

    def submit(self, asked: Asked) -> Steps:
        """Have it generated and judged. Raises as `EngineThread.submit` does."""
        for ask, judgement in zip(asked.asks, asked.judgements, strict=True):
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

    @property
    def loaded(self) -> Loaded:
        if self.result is None:
            raise NotReadyError(f"not ready: {self.reason}")
        if (reason := self.result.engine.unready) is not None:
            raise NotReadyError(f"not ready: {reason}")
        return self.result


def load(settings: Settings) -> Loaded:
    """Load artifact and model and start. Raises TrajGuardError of any kind but RequestError."""
    from detector import artifact as artifacts

    artifact = artifacts.load(settings.artifact)
    # A bad artifact is told before the seconds that transformers takes to import.
    from detector.engine.model.checkpoint import load_checkpoint
    from detector.engine.model.threads import set_threads

    set_threads(settings.threads)
    dtype = artifact.manifest.fingerprint.dtype if settings.dtype == "auto" else settings.dtype
    try:
        checkpoint = load_checkpoint(settings.model, dtype)
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
    from detector.engine.engine import Engine
    from detector.engine.model.text import Text
    from detector.engine.self_test import self_test

    manifest = artifact.manifest
    manifest.require(checkpoint.fingerprint, checkpoint.name)
    detector = artifact.detector.at(
        settings.alpha or artifact.detector.alpha,
        settings.guarantee or artifact.detector.guarantee,
    ).to(checkpoint.model.device)
    codec = Text(checkpoint.tokenizer, manifest.context.template, manifest.context.text)
    self_test(checkpoint)
    judge = Judge(detector)
    engine = Engine(
        checkpoint,
        looks=judge.looks,
        observer=judge.observe,
        n_slots=settings.n_slots,
        max_length=settings.max_length,
        max_queue=settings.max_queue,
        max_queue_tokens=settings.max_queue_tokens,
    )
    return Loaded.of(settings, artifact.id, manifest, judge, codec, engine, checkpoint.name)
