"""What an artifact refuses of sets that are none of its scope."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibration.bench.scope.guard import collect_sets, judge_sets
from calibration.bench.scope.result import alpha_name
from calibration.bench.scope.sets import read_set
from detector.artifact import Artifact
from detector.engine.model.checkpoint import Checkpoint


def refused(
    artifact: Artifact, checkpoint: Checkpoint, paths: Sequence[Path], out: Path, alpha: float
) -> dict[str, tuple[int, int]]:
    """How many of each set, and of how many; runs the model on what `out` lacks."""
    sets = [read_set(path, "B") for path in paths]
    collect_sets(artifact, checkpoint, sets, out)
    flags = judge_sets(artifact, sets, out, [alpha], ()).refused[alpha_name(alpha)]
    return {name: (sum(found), len(found)) for name, found in flags.items()}
