"""An artifact for the tiny model that keeps neighbours, and texts of theirs."""

from __future__ import annotations

from pathlib import Path

from calibration.collection import CollectionFolder
from calibration.neighbours import NeighbourOptions, with_neighbours
from calibration.pooling import pools_of
from detector.artifact import Artifact
from detector.engine.model.checkpoint import Checkpoint
from tests.calibrated import calibrated


def calibrated_with_neighbours(checkpoint: Checkpoint, folder: Path) -> Artifact:
    """As `calibrated`, with 60 questions, and those held out as the one kind out of scope."""
    artifact = calibrated(checkpoint, folder)
    collections = [CollectionFolder(folder / "collected").read()]
    pools = pools_of(artifact.manifest, collections)
    return with_neighbours(
        artifact,
        pools["fit"],
        pools["conformal"],
        pools["holdout"],
        NeighbourOptions(60, keep_questions=True),
    )
