"""Fine-tune: train the model on in-distribution questions and answers, the paper's first step.

The ordinary Hugging Face Trainer, on the answer's tokens alone, under the template that
serving will use. A tenth of the rows is held out of training: after each epoch the loss on
them is taken, and the epoch at which it is lowest is kept, so that nothing is memorised and no
OOD question has a say; training stops once it has not fallen for two epochs. It checkpoints
every epoch and resumes from the last one. What it writes is an ordinary checkpoint folder:
collect and serve it by its path, with the same template, on other questions than these.

Patch-level training (arXiv 2407.12665) runs the first share of the epochs on sequences of
patches: the mean of K consecutive token embeddings goes in, and each patch predicts all K
tokens of the next one. A share lambda at 1/K of the tokens costs about lambda / K + 1 - lambda.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from calibration.bench.paper.answers import answer_text
from calibration.questions import key_of
from calibration.trained import QUESTIONS, RECORD
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.text import Text
from detector.errors import CalibrationError

log = logging.getLogger(__name__)

Row = tuple[str, Any]
"""A question and its answer."""

_IGNORED = -100
_HELD_OUT_EVERY = 10
_PATIENCE = 2
"""Epochs without a lower loss after which training stops."""


@dataclass(frozen=True)
class FinetuneOptions:
    """How to train. `lora_rank` 0 trains all weights. `patch_size` 1 is token level throughout;
    over 1, the first `patch_share` of the epochs is patch level.
    """

    template: str = "Q: {question}\nA:"
    n_epochs: int = 6
    learning_rate: float = 3e-5
    batch_size: int = 8
    lora_rank: int = 0
    patch_size: int = 1
    patch_share: float = 2 / 3
    seed: int = 0


class AnsweredQuestions(Dataset[dict[str, Any]]):
    """Token ids of question and answer; labels on the answer and the end token alone."""

    def __init__(self, text: Text, eos: int, rows: Sequence[Row]) -> None:
        self._examples = []
        for question, answer in rows:
            prompt = text.encode_conversation([{"role": "user", "content": question.strip()}])
            response = (*text.encode_response(" " + answer_text(answer)), eos)
            ids = [*prompt, *response]
            labels = [_IGNORED] * len(prompt) + list(response)
            self._examples.append({"input_ids": ids, "labels": labels})

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._examples[index]


@dataclass(frozen=True)
class _Padder:
    """Right-pads a batch to a whole number of patches."""

    pad: int
    multiple: int

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(example["input_ids"]) for example in examples)
        n = -(-longest // self.multiple) * self.multiple

        def padded(name: str, value: int) -> Tensor:
            return torch.tensor([e[name] + [value] * (n - len(e[name])) for e in examples])

        ids = padded("input_ids", self.pad)
        lengths = torch.tensor([[len(example["input_ids"])] for example in examples])
        mask = (torch.arange(n)[None] < lengths).long()
        return {"input_ids": ids, "attention_mask": mask, "labels": padded("labels", _IGNORED)}


def patch_loss(model: PreTrainedModel, batch: dict[str, Tensor], size: int) -> Tensor:
    """Mean cross-entropy of each patch's tokens given the patches before it."""
    ids, labels = batch["input_ids"], batch["labels"]
    n_patches = ids.shape[1] // size
    embeddings = model.get_input_embeddings()(ids)
    patches = embeddings.unflatten(1, (n_patches, size)).mean(2)
    mask = batch["attention_mask"].unflatten(1, (n_patches, size)).amax(2)
    logits = model(inputs_embeds=patches, attention_mask=mask).logits[:, :-1]
    targets = labels.unflatten(1, (n_patches, size))[:, 1:]
    repeated = logits[:, :, None].expand(*targets.shape, logits.shape[-1])
    loss: Tensor = torch.nn.functional.cross_entropy(
        repeated.flatten(0, 2).float(), targets.flatten(), ignore_index=_IGNORED
    )
    return loss


class _PatchTrainer(Trainer):
    """A Trainer whose first `patch_steps` steps are patch level."""

    def __init__(self, *, patch_size: int, patch_share: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._patch_size = patch_size
        self._patch_share = patch_share

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        in_patches = self.state.global_step < self._patch_share * self.state.max_steps
        if self._patch_size > 1 and in_patches and not return_outputs:
            return patch_loss(model, inputs, self._patch_size)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


@dataclass(frozen=True)
class Finetuned:
    """What training came to: the epoch that was kept, its loss on the held-out rows (nats a
    token), and the seconds that this run took.
    """

    n_trained: int
    n_held_out: int
    epoch: int
    loss: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"trained on {self.n_trained} rows in {self.seconds:.0f} s; kept epoch {self.epoch}, "
            f"whose loss on {self.n_held_out} held-out rows is the lowest: {self.loss:.3f}"
        )


def _key(question: str) -> str:
    return key_of([{"content": question}])


def hold_out(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to train on, and every tenth in order of a hash of the question, held out.

    Copies of a question stay together. Raises CalibrationError below 2 distinct questions.
    """
    keys = [_key(question) for question, _ in rows]
    held = set(sorted(set(keys))[::_HELD_OUT_EVERY])
    if len(set(keys)) < 2:
        raise CalibrationError(
            f"{len(rows)} rows to train on: fine-tuning needs at least 2 different questions, "
            "one of them to hold out",
            param="questions",
        )
    marked = list(zip(rows, keys, strict=True))
    return [row for row, key in marked if key not in held], [
        row for row, key in marked if key in held
    ]


def finetune(
    checkpoint: Checkpoint,
    rows: Sequence[Row],
    folder: Path,
    options: FinetuneOptions,
) -> Finetuned:
    """Train on (question, answer) rows and write the best epoch's checkpoint to `folder`.

    The checkpoint should be loaded in float32; training multiplies in bfloat16 where the
    hardware does. Raises CalibrationError when `folder` holds a run with other options, or
    the rows are too few.
    """
    trained, held_out = hold_out(rows)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    keys = sorted({_key(question) for question, _ in rows})
    described = json.dumps({"model": checkpoint.name, QUESTIONS: keys} | vars(options))
    if record.exists() and record.read_text() != described:
        raise CalibrationError(
            f"{str(folder)!r} holds a fine-tuning with other options: choose another --out or "
            "remove it",
            param="out",
        )
    record.write_text(described)
    text = Text(checkpoint.tokenizer, options.template)
    eos = min(checkpoint.eos_ids)
    model: Any = checkpoint.model
    if options.lora_rank:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(r=options.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
    model.train()
    cuda = torch.cuda.is_available()
    epochs = folder / "epochs"
    arguments = TrainingArguments(
        output_dir=str(epochs),
        num_train_epochs=options.n_epochs,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=options.batch_size,
        warmup_steps=0.05,
        save_strategy="epoch",
        save_total_limit=1,
        eval_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        logging_steps=10,
        report_to=[],
        seed=options.seed,
        use_cpu=not cuda,
        bf16=True,
        dataloader_pin_memory=cuda,
        train_sampling_strategy="group_by_length",
    )
    trainer = _PatchTrainer(
        model=model,
        args=arguments,
        train_dataset=AnsweredQuestions(text, eos, trained),
        eval_dataset=AnsweredQuestions(text, eos, held_out),
        data_collator=_Padder(eos, options.patch_size),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=_PATIENCE)],
        patch_size=options.patch_size,
        patch_share=options.patch_share,
    )
    last = get_last_checkpoint(str(epochs)) if epochs.is_dir() else None
    if last is not None:
        log.info("resuming after %s", Path(last).name)
    result = trainer.train(resume_from_checkpoint=last)
    best = model.merge_and_unload() if options.lora_rank else model
    best.eval().to(torch.bfloat16).save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    state = trainer.state
    assert state.best_global_step is not None
    assert state.best_metric is not None
    return Finetuned(
        n_trained=len(trained),
        n_held_out=len(held_out),
        epoch=round(state.best_global_step * options.n_epochs / state.max_steps),
        loss=state.best_metric,
        seconds=float(result.metrics["train_runtime"]),
    )
