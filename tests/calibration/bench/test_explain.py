"""The instrument that says what explanations are worth."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calibration.__main__ import main as calibrate
from calibration.bench.explain.__main__ import main
from calibration.bench.explain.kinds import Tally, inside
from detector.artifact import Artifact
from detector.neighbour_names import NeighbourName, NeighbourNames
from detector.neighbours import Neighbours, Space, look_neighbours
from detector.trajectory import PROMPT
from tests.calibration.conftest import Collected
from tests.detector.test_artifact import artifact  # noqa: F401 (a fixture)
from tests.detector.test_detector import planes


def test_each_is_left_out_of_its_own_neighbours(artifact: Artifact) -> None:  # noqa: F811
    """Two of a kind side by side, one of another between files, and one that has no kind."""
    places = torch.tensor([[0.0], [1.0], [10.0], [12.5], [15.5]])
    kept = look_neighbours(Space.fit(planes(20, 0), None, 1), places, places[:0])
    names = [("a", "sums"), ("b", "sums"), ("c", "ages"), ("d", None), ("e", "ages")]
    manifest = artifact.manifest.model_copy(
        update={
            "neighbours": NeighbourNames(
                questions=tuple(NeighbourName(id=i, file="f", kind=kind) for i, kind in names)
            )
        }
    )
    detector = replace(artifact.detector, neighbours=Neighbours({PROMPT: kept}))
    whole, only = inside(Artifact.of(detector, manifest))
    # Nearest: b, a, d, c, d.
    assert "3 kinds or files: nearest 2 of 5, 40.0%" in whole
    assert "one of 3 nearest 4 of 5, 80.0%" in whole
    # Of ten pairs two are of one kind.
    assert whole.endswith("at random 20.0%")
    assert "of those with a kind: nearest 2 of 4, 50.0%" in only


def test_a_tally_has_the_exact_interval() -> None:
    tally = Tally(chance=0.5)
    for nearest in (["a", "b", "c"], ["b", "a", "c"], ["b", "c", "d", "a"]):
        tally.add("a", nearest)
    assert (tally.n, tally.n_right, tally.n_among_three) == (3, 1, 2)
    # Clopper and Pearson, 1 and 2 of 3.
    assert "1 of 3, 33.3% (0.8% to 90.6%)" in str(tally)
    assert "2 of 3, 66.7% (9.4% to 99.2%)" in str(tally)


def test_the_command_leaves_background_questions_out(
    collected: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    inside = [str(folder) for folder in collected.inside]
    contrast = ["--contrast", str(collected.background)]
    fit = ["fit", *inside, *contrast, "--scope", "tests", "--alpha", "0.2", "--out", str(out)]
    assert calibrate(fit) == 0
    capsys.readouterr()
    assert main(["kinds", str(out), "--collected", *inside, *contrast, "--folds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == [
        f"in scope, prompt, {re.findall(r'[0-9]+', lines[0])[0]} kinds or files",
        "in scope, prompt, of those with a kind",
    ]
    assert lines[2].startswith("out of scope, prompt, ")
    nearer = "nearer to a kind out of scope, out of scope"
    assert any(nearer in line for line in lines[3:])
    folds = ["--folds", "2", "--leave-kinds-out"]
    assert main(["kinds", str(out), "--collected", *inside, *contrast, *folds]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("out of scope") for line in lines)
    assert any(nearer in line for line in lines[2:])


def test_an_artifact_without_neighbours_is_refused(
    collected: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    inside = [str(folder) for folder in collected.inside]
    fit = ["fit", *inside, "--scope", "tests", "--alpha", "0.2", "--neighbours", "0"]
    assert calibrate([*fit, "--out", str(out)]) == 0
    assert main(["kinds", str(out)]) == 2
    assert "`trajguard neighbours`" in capsys.readouterr().err
