"""Entailment between short answers, by a small model of natural language inference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from detector.engine.model.checkpoint import weights_digest
from detector.errors import CheckpointError

_ENTAILMENT = "entailment"


class Nli:
    """A sequence-classification model, on the CPU, that has a label "entailment". `identity` is
    its name with the beginning of its weights' digest: another one clusters otherwise.
    """

    def __init__(self, name: str) -> None:
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                name, use_safetensors=True
            ).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = str(error).strip().splitlines()
            raise CheckpointError(
                f"NLI model {name!r} cannot be loaded ({said[0] if said else type(error).__name__})"
                ": name a local folder with config.json, or a Hugging Face id",
                param="nli",
            ) from None
        labels = {
            str(label).casefold(): index for label, index in self._model.config.label2id.items()
        }
        if _ENTAILMENT not in labels:
            raise CheckpointError(
                f"NLI model {name!r} has the labels {', '.join(sorted(labels))} and none that is "
                f"{_ENTAILMENT!r}: name a model of natural language inference",
                param="nli",
            )
        self._entailment = labels[_ENTAILMENT]
        self.identity = f"{Path(name).name}@{weights_digest(self._model)[:12]}"

    @torch.inference_mode()
    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Of pairs of texts: whether entailment is the most likely label."""
        encoded = self._tokenizer(
            [first for first, _ in pairs],
            [second for _, second in pairs],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        best = self._model(**encoded).logits.argmax(-1)
        return [int(label) == self._entailment for label in best]


@cache
def load_nli(name: str) -> Nli:
    """Once a process. Raises CheckpointError as `Nli` does."""
    return Nli(name)
