"""The commands on a tiny model: sets, what they measure, and functions that are run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibration.__main__ import main
from calibration.bench.paper.__main__ import main as paper
from calibration.bench.paper.programs.families import FAMILIES
from calibration.bench.paper.programs.measuring import drawn, surface_auroc
from calibration.bench.paper.programs.sets import program_sets
from calibration.bench.paper.programs.shipped import refused
from calibration.reporting.scoring import auroc
from detector.artifact import Artifact
from detector.engine.model.checkpoint import Checkpoint
from tests.tiny import tiny_checkpoint

N = 100


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of two families, and one of them collected; answers are as random as the model."""
    folder = tmp_path_factory.mktemp("programs")
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(folder / "model")
    checkpoint.tokenizer.save_pretrained(folder / "model")
    (folder / "ladder").mkdir()
    asked = [family for family in FAMILIES if family.name in ("space", "case-list")]
    for name, rows in program_sets(N, 0, asked).items():
        (folder / "ladder" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sets = sorted(map(str, (folder / "ladder").glob("space-*.jsonl")))
    options = ["--template", "{question}", "--text", "typed", "--looks", "prompt,end"]
    model = ["--model", str(folder / "model"), "--dtype", "float32", "--max-tokens", "2"]
    out = ["--out", str(folder / "collected")]
    assert main(["collect", *sets, *options, *model, *out]) == 0
    return folder


def test_a_family_is_measured(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [str(work / "ladder"), "--collected", str(work / "collected"), "--family", "space"]
    assert paper(["programs", *asked, "--out", str(work / "out")]) == 0
    shown = capsys.readouterr().out
    document = json.loads((work / "out" / "programs.json").read_text())
    rungs = {rung["name"]: rung for rung in document["ladder"]}
    assert len(rungs) == 7
    assert rungs["space-stay"]["guard"] is None
    for name, rung in rungs.items():
        assert f"| {name} |" in shown
        assert rung["n_right"] == 0
        assert rung["n"] == N - 60
        if name != "space-stay":
            value, low, high = rung["guard"]
            assert 0 <= low <= value <= high <= 1
    # No answer of a random model is right, and so nothing is said of quality.
    assert document["quality"] == []
    assert (work / "out" / "programs-tables.md").read_text().startswith("| set |")


def test_aurocs_of_sets_are_weighed_by_their_pairs() -> None:
    one = (np.array([1.0, 2.0]), np.array([3.0]))
    two = (np.array([30.0]), np.array([20.0]))
    assert drawn([one, two])[0] == pytest.approx(2 / 3)
    # Of 3 x 2 pairs 4: the 3 and the 20 are above the 1 and the 2, and below the 30.
    assert drawn([one, two], pooled=True)[0] == pytest.approx(4 / 6)
    assert drawn([(np.array([1.0]), np.array([1.0]))]) == (0.5, 0.5, 0.5)
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 60), rng.normal(1, 1, 80)
    value, lowest, highest = drawn([(low, high)])
    assert value == pytest.approx(auroc(low, high))
    # The standard error of an AUROC of 0.76 on 60 and 80 is 0.040 (Hanley and McNeil).
    assert highest - lowest == pytest.approx(2 * 1.96 * 0.040, rel=0.25)


def test_the_surface_is_what_a_count_tells() -> None:
    assert surface_auroc(["12 + 34 =", "1 + 2 ="], ["21 + 43 =", "2 + 1 ="]) == 0.5
    assert surface_auroc(["12 = 3", "14 = 5"], ["12 = B", "14 = C"]) == 1.0


def test_functions_of_a_file_are_run_and_labelled(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [str(work / "ladder" / f"{name}.jsonl") for name in ("case-list-reverse", "space-swap")]
    out = work / "solved"
    empty = work / "responses.jsonl"
    empty.write_text(json.dumps({"question": "?", "response": "!"}))
    asked = ["solve", *sets, "--n", "2", "--out", str(out), "--responses", str(empty)]
    assert paper(asked) == 2
    assert "no response to 4 of 4 problems" in capsys.readouterr().err
    prompts = [json.loads(line) for line in (out / "prompts.jsonl").read_text().splitlines()]
    written = ["def solver(v): return v[::-1]", "def solver(v): return v"]
    written += ["START_CODE\ndef solver(x, y): return [y, x]\nEND_CODE", "No."]
    rows = [row | {"response": text} for row, text in zip(prompts, written, strict=True)]
    empty.write_text("\n".join(map(json.dumps, rows)))
    assert paper(asked) == 0
    shown = capsys.readouterr().out
    assert "| case-list | 2 of 2 | 1 | 1 of 2, 50 (1 to 99) | answer 2 |" in shown
    assert "| space | 1 of 2 | 1 | 1 of 2, 50 (1 to 99) | answer 1, nothing written 1 |" in shown
    assert "| all | 3 of 4 | 2 | 2 of 4, 50 (7 to 93) |" in shown
    labels = [json.loads(line) for line in (out / "space-swap.jsonl").read_text().splitlines()]
    assert [label["solves"] for label in labels] == [True, False]


def test_the_ladder_has_programs_unless_it_is_told_not_to(tmp_path: Path) -> None:
    for options, n in (([], 61), (["--no-programs"], 0)):
        out = tmp_path / str(n)
        assert paper(["ladder", "--n", "1", *options, "--out", str(out)]) == 0
        assert len(list(out.iterdir())) == 15 + n


def test_an_artifact_refuses_by_set(
    work: Path, artifact: Artifact, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    paths = [work / "ladder" / f"{name}.jsonl" for name in ("space-stay", "space-swap")]
    found = refused(artifact, checkpoint, paths, tmp_path, alpha=0.05)
    assert list(found) == ["space-stay", "space-swap"]
    # Word problems are its scope, to which rows of points are nothing like.
    assert all(n == N and count > N / 2 for count, n in found.values())


def test_a_model_is_asked_once(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [str(work / "ladder" / "space-swap.jsonl")]
    model = ["--model", str(work / "model"), "--dtype", "float32", "--max-tokens", "4"]
    asked = ["solve", *sets, "--n", "2", "--out", str(work / "asked"), *model]
    assert paper(asked) == 0
    assert (
        "| all | 0 of 2 | 0 | 0 of 2, 0 (0 to 84) | nothing written 2 |" in capsys.readouterr().out
    )
    shards = {path: path.stat().st_mtime_ns for path in (work / "asked/collected").iterdir()}
    assert paper(asked) == 0
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
