"""Monte-Carlo dropout on a tiny model: what it measures, and that the benchmark shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from calibration.__main__ import main
from calibration.bench.paper.__main__ import main as paper
from calibration.bench.paper.dropout import layer_dropout, mean_log_probability
from calibration.collection import CollectionFolder
from calibration.generate import generate
from detector.errors import CalibrationError
from tests.tiny import tiny_checkpoint


@torch.inference_mode()
def test_log_probabilities_are_those_of_plain_passes() -> None:
    model = tiny_checkpoint().model
    sequences = [((5, 6, 7), (8, 9)), ((3, 4), (5, 6, 7, 1, 2)), ((9,), (4,))]
    expected = []
    for prompt, response in sequences:
        log_p = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        taken = [float(log_p[len(prompt) - 1 + n, token]) for n, token in enumerate(response)]
        expected.append(sum(taken) / len(taken))
    assert mean_log_probability(model, sequences).tolist() == pytest.approx(expected, rel=1e-5)


@torch.inference_mode()
def test_dropout_is_on_while_open_alone() -> None:
    model = tiny_checkpoint().model
    sequences = [((5, 6, 7), (8, 9))]
    before = mean_log_probability(model, sequences)
    with layer_dropout(model, 0.0):
        torch.testing.assert_close(mean_log_probability(model, sequences), before)
    with torch.random.fork_rng(devices=[]), layer_dropout(model, 0.5):
        torch.manual_seed(0)
        drawn = {float(mean_log_probability(model, sequences)) for _ in range(3)}
    assert len(drawn) == 3
    assert torch.equal(mean_log_probability(model, sequences), before)


def test_command_adds_the_baseline_to_the_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(tmp_path / "model")
    checkpoint.tokenizer.save_pretrained(tmp_path / "model")
    for name, seed, n in (("id", 0, 200), ("ood", 1, 30)):
        rows = [json.dumps({"question": q, "answer": float(a)}) for q, a in generate(n, seed)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    files = [str(tmp_path / f"{name}.jsonl") for name in ("id", "ood")]
    model = ["--model", str(tmp_path / "model"), "--dtype", "float32"]
    collected = tmp_path / "c"
    more = ["--looks", "prompt,end", "--max-tokens", "3", "--out", str(collected)]
    assert main(["collect", *files, *model, *more]) == 0
    assert paper(["dropout", str(collected / "id"), *model, "--passes", "3"]) == 0
    sets = [files[0], "--near", files[1], "--collected", str(collected), "--alpha", "0.1"]
    arguments = ["benchmark", *sets, "--out", str(tmp_path / "out")]
    assert paper(arguments) == 2
    assert "'ood' lacks the dropout baseline" in capsys.readouterr().err
    assert paper(["dropout", str(collected / "ood"), *model, "--passes", "3"]) == 0
    written = (collected / "id" / "dropout.safetensors").stat().st_mtime_ns
    assert paper(["dropout", str(collected / "id"), *model, "--passes", "3"]) == 0
    assert (collected / "id" / "dropout.safetensors").stat().st_mtime_ns == written
    assert paper(arguments) == 0
    assert "MC dropout" in capsys.readouterr().out
    assert paper(["dropout", str(collected / "id"), *model, "--passes", "1"]) == 2
    assert "greater than or equal to 2" in capsys.readouterr().err
    store = CollectionFolder(collected / "id")
    with pytest.raises(CalibrationError, match="of another collection"):
        store.deviation(["other"])
