"""The paper's protocol for a guard that was fitted to the near sets too."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from calibration.__main__ import main
from calibration.bench.paper.__main__ import main as paper
from calibration.generate import generate
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collections of a tiny model: two files of one kind of question and one of digits, and an
    artifact fitted to the first two.
    """
    folder = tmp_path_factory.mktemp("shipped")
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(folder / "model")
    checkpoint.tokenizer.save_pretrained(folder / "model")
    files = {
        "one": [question for question, _ in generate(200, seed=1)],
        "two": [question for question, _ in generate(200, seed=2)],
        "digits": [f"{number} {number * 7}" for number in range(60)],
    }
    for name, questions in files.items():
        rows = [json.dumps({"question": question}) for question in questions]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    paths = [str(folder / f"{name}.jsonl") for name in files]
    model = ["--model", str(folder / "model"), "--dtype", "float32"]
    assert main(["collect", *paths, "--out", str(folder), *model]) == 0
    fitted = [str(folder / name) for name in ("one", "two")]
    options = ["--known-templates", "--scope", "x", "--rank", "4"]
    assert main(["fit", *fitted, *options, "--out", str(folder / "a.safetensors")]) == 0
    return folder


def shipped(work: Path, *options: str) -> int:
    fitted = [str(work / name) for name in ("one", "two")]
    return paper(["shipped", str(work / "a.safetensors"), *fitted, *options])


def test_near_is_of_the_scope_and_far_is_not(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = str(work / "digits")
    assert shipped(work, "--id", "one", "--near", "two", "--far", far) == 0
    printed = capsys.readouterr().out
    found = {
        name: (int(n), float(auroc))
        for name, n, auroc in re.findall(r"^(\S.*?) +(\d+) +AUROC +([\d.]+)", printed, re.MULTILINE)
    }
    assert list(found) == ["two", "near, mean", "digits", "far, mean"]
    assert found["digits"][0] == 60
    # Of the holdout split alone, which has a fifth of 200 questions.
    assert 20 <= found["two"][0] <= 60
    # About 40 of each side alike: 50 with a standard deviation of 6.5.
    assert 25 < found["two"][1] < 75
    assert found["digits"][1] > 95


def test_a_file_that_the_guard_was_not_fitted_to_is_told(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shipped(work, "--id", "one", "--near", "three") == 2
    assert "no question of 'three': name files of one, two" in capsys.readouterr().err
