"""What the packaged artifact refuses of sets, which are none of its scope."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from calibration.bench.scope.guard import collect_sets, judge_sets
from calibration.bench.scope.result import alpha_name
from calibration.bench.scope.sets import read_set
from detector import artifact as artifacts
from detector.engine.model.checkpoint import load_checkpoint
from detector.engine.model.default_model import NAME


def refused(paths: Sequence[Path], out: Path, alpha: float) -> dict[str, tuple[int, int]]:
    """How many of each set, and of how many; runs the default model on what `out` lacks."""
    if not paths:
        return {}
    artifact = artifacts.load(Path(str(files("detector.artifacts") / "grade-school.safetensors")))
    checkpoint = load_checkpoint(NAME, artifact.manifest.fingerprint.dtype)
    sets = [read_set(path, "B") for path in paths]
    collect_sets(artifact, checkpoint, sets, out / "packaged")
    design = judge_sets(artifact, sets, out / "packaged", [alpha], ())
    found = design.refused[alpha_name(alpha)]
    return {name: (sum(flags), len(flags)) for name, flags in found.items()}
