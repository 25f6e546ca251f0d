"""What scoring costs: that the command times the sizes it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.bench.speed.__main__ import main
from calibration.bench.speed.timing import fit_cost
from detector.artifact import Artifact


def test_timing_prints_both_sizes(
    artifact: Artifact,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("calibration.bench.speed.timing._REPEATS", 1)
    monkeypatch.setattr("calibration.bench.speed.timing.fit_cost", lambda: fit_cost(20, 3, 8, 4))
    artifact.save(tmp_path / "a.safetensors")
    assert main(["timing", str(tmp_path / "a.safetensors"), "--fit"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "fit of 20 trajectories of 3 x 8 at rank 4" in lines[-6]
    assert "33 x 4096 at rank 256" in lines[-5]
    assert "7 x 32, score and verdict" in lines[-4]
    assert "7 x 32, all 6 scores of orders up to 0, and verdict" in lines[-3]
    assert "7 x 32, all 16 scores of orders up to 5, and verdict" in lines[-1]
