"""The instrument around a scope on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.__main__ import main as calibration
from calibration.bench.scope.__main__ import main as scope
from calibration.bench.scope.result import read_measured
from calibration.generate import generate
from tests.calibration.bench.around_scope import around_scope, write
from tests.tiny import tiny_checkpoint

PNG = b"\x89PNG"


def test_a_tiny_guard_is_measured_and_its_tradeoff_plotted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, math = around_scope(tmp_path)
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(tmp_path / "model")
    checkpoint.tokenizer.save_pretrained(tmp_path / "model")
    model = ["--model", str(tmp_path / "model")]
    questions = write(tmp_path, "inside", [text for text, _ in generate(200, seed=0)])
    collected, artifact = tmp_path / "c", tmp_path / "a.safetensors"
    dtype = ["--dtype", "float32"]
    assert calibration(["collect", str(questions), "--out", str(collected), *model, *dtype]) == 0
    folder = str(collected / "inside")
    fit = ["fit", folder, "--known-templates", "--scope", "problems", "--out", str(artifact)]
    assert calibration(fit) == 0
    asked_for = [str(data), "--math", str(math), "--artifact", str(artifact), *model]
    asked_for += ["--holdout", folder, "--out", str(tmp_path / "out"), "--n", "8"]
    capsys.readouterr()
    assert scope(asked_for) == 0
    shown = capsys.readouterr().out
    # Of 60 conformal questions only 0.05 can be kept.
    assert "Summary at alpha = 0.05" in shown
    assert "0.01" not in shown
    out = tmp_path / "out" / "first-8"
    measured = read_measured(out / "scope.json")
    (guard,) = measured.designs
    assert guard.share("0.05", "B_letters").rate == 1
    assert guard.holdout["0.05"].n > 20
    assert all(len(guard.scores[r.name]) == len(r.keys) for r in measured.sets)
    assert (out / "scope.png").read_bytes().startswith(PNG)
    assert "| · " in (out / "scope-tables.md").read_text()
    plotted = tmp_path / "tradeoff.png"
    assert scope(["tradeoff", str(out / "scope.json"), "--out", str(plotted)]) == 0
    assert plotted.read_bytes().startswith(PNG)
    plotted.write_text("{}")
    assert scope(["tradeoff", str(plotted), "--out", str(plotted)]) == 2
    assert "is not a measurement" in capsys.readouterr().err


def test_the_rival_comes_with_questions_to_fit_it_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = around_scope(tmp_path)
    assert scope([str(data), "--rival", "--out", str(tmp_path)]) == 2
    assert scope([str(data), "--no-guard", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "give both or neither" in said
    assert "leaves nothing to measure" in said
