"""An artifact with second opinions, and a tiny NLI model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from detector.artifact import Artifact
from detector.engine_record import EngineRecord
from detector.opinion_record import Asking, Example, OpinionRecord, OpinionScores
from tests.tiny import tiny_tokenizer

EXAMPLE = Example(question="Ada has 2 figs and gets 3. How many has she?", answer="5")
ASKING = Asking(n_answers=3, max_tokens=4, temperature=1.0, example=EXAMPLE)
LOW, HIGH = -1e9, 1e9


def with_opinions(artifact: Artifact, score: float, **fields: object) -> Artifact:
    """All 39 flagged questions in scope had this score, so that any other has the p-value 1/40,
    where it is higher, or 1.
    """
    same = OpinionScores(uncertainty=(score,) * 39, persuasion=(score,) * 39)
    record = OpinionRecord.model_validate(
        {
            "asking": ASKING,
            "population": "flagged",
            "alpha": 0.05,
            "calibration": same,
            "holdout": same,
            "n_holdout": 400,
            "dtype": artifact.manifest.fingerprint.dtype,
            "engine": EngineRecord(),
            "sources": {"made": "0" * 64},
            **fields,
        }
    )
    manifest = artifact.manifest.model_copy(update={"second_opinion": record})
    return Artifact.of(artifact.detector, manifest)


def tiny_nli(folder: Path, labels: tuple[str, ...] = ("neutral", "ENTAILMENT")) -> Path:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "<end>"
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=257,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        initializer_range=1.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder
