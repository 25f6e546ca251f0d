"""The benchmark on a tiny model: what it prints, writes and refuses."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from calibration.__main__ import main
from calibration.bench.paper import benchmark
from calibration.bench.paper.__main__ import main as paper
from calibration.bench.paper.benchmark import exact_false_alarms
from calibration.generate import generate
from detector import conformal
from tests.tiny import tiny_checkpoint

N = 200


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ID file with a wrong answer here and there, a near and a far OOD file."""
    folder = tmp_path_factory.mktemp("benchmark")
    checkpoint = tiny_checkpoint(n_layers=9)
    checkpoint.model.save_pretrained(folder / "model")
    checkpoint.tokenizer.save_pretrained(folder / "model")

    def write(name: str, rows: list[tuple[str, object]]) -> str:
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"question": q, "answer": a}) for q, a in rows))
        return str(path)

    files = [
        write("id", [(q, float(a)) for q, a in generate(N, seed=0)]),
        write("near", [(q.upper(), a) for q, a in generate(80, seed=1)]),
        write("far", [(f"zz{'z' * (n % 7)} {n}", "x") for n in range(60)]),
    ]
    model = ["--model", str(folder / "model"), "--dtype", "float32"]
    looks = ["--looks", "prompt-mean,prompt,4,end", "--max-tokens", "6"]
    assert main(["collect", *files, "--out", str(folder / "c"), *model, *looks]) == 0
    return folder


def run(work: Path, *more: str) -> int:
    sets = [str(work / "id.jsonl"), "--near", str(work / "near.jsonl")]
    far = ["--far", str(work / "far.jsonl"), "--collected", str(work / "c")]
    return paper(["benchmark", *sets, *far, "--out", str(work / "out"), *more])


def test_table_document_and_page(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work, "--alpha", "0.1") == 0
    shown = capsys.readouterr().out
    document = json.loads((work / "out" / "benchmark.json").read_text())
    assert (document["n_fit"], document["n_test"], document["n_conformal"]) == (120, 80, 40)
    names = [row["name"] for row in document["rows"]]
    assert len(names) == len(set(names)) > 30
    assert all(name in shown for name in names)
    guard = document["rows"][0]
    # Random weights still tell most repeated letters from word problems.
    assert guard["cells"]["far"]["auroc"] > 0.8
    # No two distances are equal, so its rates are what ranks alone say: 4 of 41, and 1 of 41 for
    # PAC, where 0.9 ** 40 < 5 % < the tail of two.
    assert guard["false_alarms_exact"] == pytest.approx(4 / 41)
    assert guard["false_alarms"] == pytest.approx(4 / 41, abs=0.006)
    assert guard["pac_false_alarms"] == pytest.approx(1 / 41, abs=0.006)
    assert document["peeking_false_alarms"] > 0
    for row in document["rows"]:
        # Floor(0.1 * 41) = 4 of 41: 9.8 %, with 40 scored rows and ties only lowering it. Over
        # 1,000 re-splits of 80 scores the mean is exact up to 0.046 / sqrt(1000) * 4 = 0.006.
        assert row["false_alarms"] <= 4 / 41 + 0.006
        assert row["pac_false_alarms"] <= row["false_alarms"]
        assert row["false_alarms_exact"] <= 4 / 41 + 1e-9
    assert document["peeking_false_alarms"] <= 4 / 41 + 1e-9
    assert len(document["layers"]["far"]) == 9
    page = (work / "out" / "benchmark.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "How many" not in page


def test_exact_false_alarms_are_the_mean_over_all_splits() -> None:
    scores = np.array([3.0, 1.0, 2.0, 2.0, 5.0, 4.0, 0.5, 2.5, 6.0, 1.5])
    n, alpha = 5, 0.4
    k = conformal.rank(n, alpha)
    rates = []
    for chosen in itertools.combinations(range(10), n):
        rest = [i for i in range(10) if i not in chosen]
        threshold = np.sort(scores[list(chosen)])[-k]
        rates.append((scores[rest] > threshold).mean())
    assert exact_false_alarms(scores, alpha) == pytest.approx(np.mean(rates), rel=1e-12)


@pytest.fixture
def few_resplits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "RESPLITS", 20)


@pytest.mark.usefixtures("few_resplits")
def test_a_collection_of_prompts_alone(work: Path, tmp_path: Path) -> None:
    model = ["--model", str(work / "model"), "--dtype", "float32"]
    files = [str(work / "id.jsonl"), str(work / "near.jsonl")]
    assert main(["collect", *files, "--out", str(tmp_path / "c"), *model]) == 0
    options = ["--near", files[1], "--collected", str(tmp_path / "c"), "--out", str(tmp_path)]
    assert paper(["benchmark", files[0], *options]) == 0
    document = json.loads((tmp_path / "benchmark.json").read_text())
    assert not any(row["name"].startswith("response") for row in document["rows"])
    assert document["peeking_false_alarms"] is None


@pytest.mark.usefixtures("few_resplits")
def test_each_file_in_turn(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(work / "id.jsonl"), str(work / "near.jsonl")]
    out = work / "turns"
    options = ["--collected", str(work / "c"), "--out", str(out), "--alpha", "0.2"]
    assert paper(["benchmark", *files, "--in-turn", *options]) == 0
    shown = capsys.readouterr().out
    assert "ID = id\n" in shown
    assert "ID = near\n" in shown
    document = json.loads((out / "near" / "benchmark.json").read_text())
    assert (document["id_name"], document["near"], document["far"]) == ("near", ["id"], [])
    assert (out / "id" / "benchmark.html").exists()


def test_what_it_refuses(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(*arguments: object) -> str:
        assert paper([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    collected = ("--collected", work / "c", "--out", tmp_path)
    assert "one ID file and some OOD" in failing("benchmark", work / "id.jsonl", *collected)
    in_turn = ("benchmark", work / "id.jsonl", "--in-turn", *collected)
    assert "two or more ID files" in failing(*in_turn)
    same = ("--near", work / "id.jsonl", *collected)
    assert "equals the ID file" in failing("benchmark", work / "id.jsonl", *same)
    near = ("--near", work / "near.jsonl", *collected)
    assert "collect at least 99" in failing(
        "benchmark", work / "id.jsonl", *near, "--alpha", "0.01"
    )
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "a"}\n')
    assert "is not a collection" in failing(
        "benchmark", work / "id.jsonl", "--far", other, *collected
    )
    changed = tmp_path / "near.jsonl"
    changed.write_text('{"question": "a"}\n')
    assert "is not the file that" in failing(
        "benchmark", work / "id.jsonl", "--near", changed, *collected
    )
    assert "rows have no 'answer'" in failing("finetune", other, "--out", tmp_path / "t")
