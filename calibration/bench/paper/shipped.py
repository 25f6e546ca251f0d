"""The paper's protocol for a guard that ships: its scope may hold the near sets too.

What it was fitted to is known to it, so questions of those collections count from the holdout
split alone; other collections count whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.collection import read_collections
from calibration.pooling import Pool, pools_of
from calibration.reporting.scoring import auroc, fpr95, scores_of
from detector.artifact import Artifact
from detector.errors import CalibrationError


@dataclass(frozen=True)
class Shift:
    """One OOD file, or the mean over a shift's: AUROC and FPR95 in [0, 1], OOD positive."""

    name: str
    n_questions: int
    auroc: float
    fpr95: float

    def __str__(self) -> str:
        return (
            f"{self.name:32} {self.n_questions:5}  AUROC {100 * self.auroc:5.1f}  "
            f"FPR95 {100 * self.fpr95:5.1f}"
        )


def shifts(
    artifact: Artifact,
    fitted: Sequence[Path],
    id_file: str,
    near: Sequence[str],
    far: Sequence[Path],
) -> Iterator[Shift]:
    """Each near and far file against the ID file, each shift's mean after its files.

    `id_file` and `near` name files that the guard was fitted to. Raises CalibrationError where
    the holdout split has no question of one, and as `pools_of` and `read_collections` do.
    """
    detector = artifact.detector
    holdout = pools_of(artifact.manifest, read_collections(fitted))["holdout"]
    scores, files = scores_of(detector, holdout), np.array(holdout.files)
    for name in (id_file, *near):
        if name not in files:
            raise CalibrationError(
                f"the holdout split has no question of {name!r}: name files of "
                f"{', '.join(sorted(set(holdout.files)))}",
                param="near",
            )
    inside = scores[files == id_file]
    outside = {"near": {name: scores[files == name] for name in near}, "far": {}}
    for folder, collection in zip(far, read_collections(far) if far else [], strict=True):
        outside["far"][folder.name] = scores_of(detector, Pool.whole(collection))
    for shift, by_file in outside.items():
        found = [
            Shift(name, len(each), auroc(inside, each), fpr95(inside, each))
            for name, each in by_file.items()
        ]
        yield from found
        if found:
            yield Shift(
                f"{shift}, mean",
                sum(each.n_questions for each in found),
                float(np.mean([each.auroc for each in found])),
                float(np.mean([each.fpr95 for each in found])),
            )
