"""The service behind the routes: a loaded model, its guard, and the thread that runs it."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace

from app.bridge import Bridge
from app.guard import Guard
from app.settings import Settings
from detector import artifact as artifacts
from detector.artifact import Artifact
from detector.backend import Sampling
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.text import Text
from detector.engine.self_test import self_test
from detector.errors import CheckpointError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What a ready service holds. `stop` ends its engine thread."""

    settings: Settings
    artifact: Artifact
    model_name: str
    text: Text
    guard: Guard
    bridge: Bridge
    started: int

    @property
    def sampling(self) -> Sampling:
        """The calibrated sampling, in force where a request names none."""
        return self.artifact.manifest.context.sampling

    @property
    def model_id(self) -> str:
        """The name that clients see: never a path of the machine."""
        return os.path.basename(self.model_name.rstrip("/")) or self.model_name  # noqa: PTH119

    def stop(self) -> None:
        self.bridge.stop()


def start_service(settings: Settings, artifact: Artifact, checkpoint: Checkpoint) -> Service:
    """Start the engine's thread, once the engine has passed its self-test.

    Raises ArtifactMismatchError when the artifact is not the model's, TooFewQuestionsError
    when it cannot keep the alpha asked for, SelfTestError when the engine does not reproduce
    the model.
    """
    artifact.manifest.require(checkpoint.fingerprint, checkpoint.name)
    detector = artifact.detector.at(
        settings.alpha or artifact.detector.alpha,
        settings.guarantee or artifact.detector.guarantee,
    ).to(checkpoint.model.device)
    artifact = replace(artifact, detector=detector)
    text = Text(checkpoint.tokenizer, artifact.manifest.context.template)
    self_test(checkpoint)
    guard = Guard(artifact, text, exclude=settings.uncalibrated == "exclude")
    engine = Engine(
        checkpoint,
        looks=guard.looks,
        observer=guard.observe,
        n_slots=settings.n_slots,
        max_length=settings.max_length,
        max_queue=settings.max_queue,
    )
    bridge = Bridge(engine, guard)
    bridge.start()
    return Service(settings, artifact, checkpoint.name, text, guard, bridge, int(time.time()))


def load_service(settings: Settings) -> Service:
    """Load artifact and model and start. Raises TrajGuardError of any kind but RequestError."""
    artifact = artifacts.load(settings.artifact)
    # transformers takes seconds to import; a bad artifact is told before that.
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
    return start_service(settings, artifact, checkpoint)
