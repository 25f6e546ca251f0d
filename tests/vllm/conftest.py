"""What the tests of vLLM share: a tiny model with heads of a size that its kernels know."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from detector.artifact import Artifact
from detector.engine.model.checkpoint import Checkpoint, best_device
from detector.manifest import Revalidation
from detector.vllm.opening import record_of
from tests.calibrated import calibrated
from tests.vllm.opening import guarded, opened, tiny

OWN = ("engine", "ends", "sampling", "grammar")


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return tiny()


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Calibrated under the own engine, in float32, and taken to hold under vLLM."""
    return held_under_vllm(calibrated(guarded(), tmp_path_factory.mktemp("calibration")))


def held_under_vllm(made: Artifact) -> Artifact:
    """The same, as if it had been revalidated."""
    seen = Revalidation(
        fingerprint=made.manifest.fingerprint,
        engine=record_of(best_device()),
        alpha=made.detector.alpha,
        guarantee=made.detector.guarantee,
        n_questions=1,
        n_flagged=0,
        n_units=1,
        rate=0,
        low=0,
        high=0.975,
        sources=made.manifest.sources,
    )
    manifest = made.manifest.model_copy(update={"revalidated": (seen,)})
    return Artifact.of(made.detector, manifest)


@pytest.fixture(autouse=True)
def by_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of the own engine, where they are run here, open vLLM's backend instead."""
    for name in OWN:
        module = f"tests.detector.test_{name}"
        monkeypatch.setattr(f"{module}.Engine", opened)
        monkeypatch.setattr(f"{module}.tiny_checkpoint", tiny)
    monkeypatch.setattr("tests.detector.plain.Engine", opened)
