"""Baselines of their own passes: what they measure, and that the benchmark shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from calibration.__main__ import main
from calibration.bench.paper import baselines, benchmark
from calibration.bench.paper.__main__ import main as paper
from calibration.bench.paper.baselines import Baselines, measure
from calibration.bench.paper.dropout import layer_dropout
from calibration.bench.paper.likelihood import Prompted, mean_likelihood
from calibration.collection import CollectionFolder
from calibration.generate import generate
from detector.engine.model.checkpoint import load_checkpoint
from detector.engine.model.text import Text
from detector.errors import CalibrationError
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def collected_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ID and an OOD file, collected with a tiny model."""
    folder = tmp_path_factory.mktemp("baselines")
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(folder / "model")
    checkpoint.tokenizer.save_pretrained(folder / "model")
    for name, seed, n in (("id", 0, 120), ("ood", 1, 30)):
        rows = [json.dumps({"question": q, "answer": float(a)}) for q, a in generate(n, seed)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    files = [str(folder / f"{name}.jsonl") for name in ("id", "ood")]
    more = ["--looks", "prompt,end", "--max-tokens", "3", "--out", str(folder / "c")]
    assert main(["collect", *files, *model_of(folder), *more]) == 0
    return folder


@pytest.fixture
def work(collected_once: Path, tmp_path: Path) -> Path:
    """A copy of those files to work on."""
    return Path(shutil.copytree(collected_once, tmp_path / "work"))


def model_of(work: Path) -> list[str]:
    return ["--model", str(work / "model"), "--dtype", "float32"]


@torch.inference_mode()
def test_dropout_is_on_while_open_alone() -> None:
    model = tiny_checkpoint().model
    sequences: list[Prompted] = [((5, 6, 7), (8, 9))]
    before = mean_likelihood(model, sequences)
    with layer_dropout(model, 0.0):
        torch.testing.assert_close(mean_likelihood(model, sequences), before)
    with torch.random.fork_rng(devices=[]), layer_dropout(model, 0.5):
        torch.manual_seed(0)
        drawn = {float(mean_likelihood(model, sequences)[0, 0]) for _ in range(3)}
    assert len(drawn) == 3
    assert torch.equal(mean_likelihood(model, sequences), before)


@torch.inference_mode()
def test_the_file_holds_each_question_s_own_baselines(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batch, of the very tokens collected; without dropout nothing deviates."""
    monkeypatch.setattr(baselines, "_DROPOUT", 0.0)
    checkpoint = load_checkpoint(str(work / "model"), "float32")
    measure(checkpoint, work / "c" / "ood", 2)
    collection = CollectionFolder(work / "c" / "ood").read()
    found = Baselines.read(work / "c" / "ood", collection.keys)
    assert found is not None
    text = Text(checkpoint.tokenizer)
    alone = [
        mean_likelihood(checkpoint.model, [(text.encode_question([question]).tokens, tokens)])
        for question, tokens in zip(collection.texts, collection.tokens, strict=True)
    ]
    torch.testing.assert_close(found.likelihood, torch.cat(alone), rtol=1e-4, atol=1e-5)
    # Greedy responses to different questions: they are not all alike.
    assert found.likelihood[:, 0].unique().numel() > 20
    assert float(found.deviation.max()) < 1e-5


def test_command_adds_the_baselines_to_the_benchmark(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "RESPLITS", 20)
    collected, model = work / "c", model_of(work)
    near = ["--near", str(work / "ood.jsonl"), "--collected", str(collected), "--alpha", "0.1"]
    arguments = ["benchmark", str(work / "id.jsonl"), *near, "--out", str(work / "out")]
    names = ("perplexity", "max softmax probability", "entropy", "MC dropout")
    assert paper(arguments) == 0
    shown = capsys.readouterr().out
    assert not any(name in shown for name in names)
    for have, lack in (("id", "ood"), ("ood", "id")):
        assert paper(["baselines", str(collected / have), *model, "--passes", "3"]) == 0
        capsys.readouterr()
        assert paper(arguments) == 2
        assert f"calibration.bench.paper baselines {collected / lack}`" in capsys.readouterr().err
        (collected / have / "baselines.safetensors").rename(work / have)
    for name in ("id", "ood"):
        (work / name).rename(collected / name / "baselines.safetensors")
    # What is there is not measured again.
    both = [str(collected / name) for name in ("id", "ood")]
    written = (collected / "id" / "baselines.safetensors").stat().st_mtime_ns
    assert paper(["baselines", *both, *model]) == 0
    assert (collected / "id" / "baselines.safetensors").stat().st_mtime_ns == written
    assert paper(arguments) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)


def test_what_it_refuses(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(*arguments: object) -> str:
        assert paper(["baselines", *map(str, arguments)]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    model = model_of(work)
    assert "--passes is '1': Input should be" in failing(work / "c" / "id", *model, "--passes", 1)
    files = [str(work / "ood.jsonl"), *model]
    assert main(["collect", *files, "--out", str(work / "prompts")]) == 0
    assert "prompts without responses" in failing(work / "prompts" / "ood", *model)
    whole = ["--looks", "end", "--max-tokens", "2", "--judged", "conversation"]
    assert main(["collect", *files, *whole, "--out", str(work / "whole")]) == 0
    assert "holds conversations" in failing(work / "whole" / "ood", *model)
    other = tiny_checkpoint(seed=1)
    other.model.save_pretrained(work / "model")
    assert "was collected with another model" in failing(work / "c" / "id", *model)
    Baselines(torch.zeros(1, 3), torch.zeros(1)).write(work / "c" / "id", ["other"])
    with pytest.raises(CalibrationError, match="of another collection"):
        Baselines.read(work / "c" / "id", ["this"])
    assert "remove it and run `baselines` again" in failing(work / "c" / "id", *model)
