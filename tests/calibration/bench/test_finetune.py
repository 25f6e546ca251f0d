"""Fine-tuning on a tiny model: ordinary checkpoints, resumed runs, adapters, patches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from calibration.bench.paper.__main__ import main as paper
from calibration.bench.paper.finetune import (
    AnsweredQuestions,
    FinetuneOptions,
    finetune,
    hold_out,
    patch_loss,
)
from calibration.generate import generate
from detector.engine.model.checkpoint import load_checkpoint
from detector.engine.model.text import Text
from detector.errors import CalibrationError
from tests.tiny import tiny_checkpoint

ROWS: list[tuple[str, Any]] = [(question, float(answer)) for question, answer in generate(24, 0)]
OPTIONS = FinetuneOptions(n_epochs=2, batch_size=8, learning_rate=1e-2)


def answer_loss(checkpoint: Any, rows: list[tuple[str, Any]] = ROWS) -> float:
    text = Text(checkpoint.tokenizer, OPTIONS.template)
    losses = []
    examples = AnsweredQuestions(text, 0, rows)
    for index in range(len(examples)):
        batch = {name: torch.tensor([values]) for name, values in examples[index].items()}
        with torch.inference_mode():
            losses.append(float(checkpoint.model(**batch).loss))
    return sum(losses) / len(losses)


def test_only_answers_are_learned() -> None:
    checkpoint = tiny_checkpoint()
    text = Text(checkpoint.tokenizer, OPTIONS.template)
    example = AnsweredQuestions(text, 0, [("2 + 2?", 4.0)])[0]
    learned = [token for token, label in zip(*example.values(), strict=True) if label != -100]
    assert text.decode(learned) == " 4"
    assert learned[-1] == 0


@pytest.mark.parametrize("more", [{}, {"lora_rank": 4}, {"patch_size": 4}])
def test_training_learns_and_writes_an_ordinary_checkpoint(
    tmp_path: Path, more: dict[str, int]
) -> None:
    before = answer_loss(tiny_checkpoint())
    options = FinetuneOptions(**{**vars(OPTIONS), "n_epochs": 3, **more})
    finetune(tiny_checkpoint(), ROWS, tmp_path, options)
    after = load_checkpoint(str(tmp_path), "float32")
    assert answer_loss(after) < before
    assert after.fingerprint.weights != tiny_checkpoint().fingerprint.weights
    assert after.eos_ids == {0}


def test_interrupted_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finetune(tiny_checkpoint(), ROWS, tmp_path / "whole", OPTIONS)
    n_steps = 0
    step = Trainer.training_step

    def interrupted(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        nonlocal n_steps
        n_steps += 1
        if n_steps == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(tiny_checkpoint(), ROWS, tmp_path / "parts", OPTIONS)
        # Three steps an epoch: the first epoch is kept, and is not trained again.
        n_steps = -100
        finetune(tiny_checkpoint(), ROWS, tmp_path / "parts", OPTIONS)
        assert n_steps == -97
    whole, parts = (load_checkpoint(str(tmp_path / n), "float32") for n in ("whole", "parts"))
    assert parts.fingerprint == whole.fingerprint


def test_the_epoch_with_the_lowest_held_out_loss_is_kept(tmp_path: Path) -> None:
    """At a rate far too high the loss only rises, and the first epoch is the best."""
    options = FinetuneOptions(n_epochs=3, batch_size=8, learning_rate=1.0)
    finetuned = finetune(tiny_checkpoint(), ROWS, tmp_path / "wild", options)
    state = json.loads(max((tmp_path / "wild" / "epochs").glob("*/trainer_state.json")).read_text())
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    assert finetuned.loss == min(losses)
    assert finetuned.epoch == losses.index(min(losses)) + 1
    _, held_out = hold_out(ROWS)
    written = load_checkpoint(str(tmp_path / "wild"), "float32")
    # Written in bfloat16, 8 bits of mantissa, and evaluated in batches of its own.
    assert answer_loss(written, held_out) == pytest.approx(finetuned.loss, rel=0.05)


def test_copies_are_held_out_together() -> None:
    rows = [(f"What is {n} + 1?", n + 1) for n in range(30)] * 2
    trained, held_out = hold_out(rows)
    assert (len(trained), len(held_out)) == (54, 6)
    assert not {question for question, _ in trained} & {question for question, _ in held_out}
    with pytest.raises(CalibrationError, match="at least 2 different questions"):
        hold_out(rows[:1])


def test_other_options_do_not_resume(tmp_path: Path) -> None:
    finetune(tiny_checkpoint(), ROWS[:8], tmp_path, FinetuneOptions(n_epochs=1))
    with pytest.raises(CalibrationError, match="other options"):
        finetune(tiny_checkpoint(), ROWS[:8], tmp_path, FinetuneOptions(n_epochs=2))


def test_patches_of_one_token_are_token_level() -> None:
    checkpoint = tiny_checkpoint()
    ids = torch.randint(1, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with torch.inference_mode():
        expected = checkpoint.model(**batch).loss
        actual = patch_loss(checkpoint.model, batch, 1)
    torch.testing.assert_close(actual, expected)


def test_command_trains_on_the_first_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(tmp_path / "model")
    checkpoint.tokenizer.save_pretrained(tmp_path / "model")
    rows = [json.dumps({"question": q, "answer": a}) for q, a in ROWS]
    (tmp_path / "q.jsonl").write_text("\n".join(rows))
    options = ["--model", str(tmp_path / "model"), "--epochs", "1", "--first", "16"]
    assert (
        paper(["finetune", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "t"), *options]) == 0
    )
    out = capsys.readouterr().out
    assert "trained on 14 rows" in out
    assert "kept epoch 1, whose loss on 2 held-out rows is the lowest" in out
