"""Baselines that need passes of their own over a collection's responses.

The passes are teacher-forced over each question and its response: one as the model is, for the
likelihood baselines, and several with dropout. What they give lies in one file beside the
collection's shards.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from calibration.bench.paper.dropout import layer_dropout
from calibration.bench.paper.likelihood import Prompted, mean_likelihood
from calibration.collection import Collection, CollectionFolder
from detector.atomic import write_atomically
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.text import Text
from detector.errors import CalibrationError

FILE = "baselines.safetensors"
_DROPOUT = 0.1
_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Baselines:
    """Of a collection's n responses: `likelihood` (n, 3), what `mean_likelihood` gives, and
    `deviation` (n,), the standard deviation over passes with dropout of the mean
    log-probability, nats a token.
    """

    likelihood: Tensor
    deviation: Tensor

    def write(self, folder: Path, keys: Sequence[str]) -> None:
        """Keep them beside the shards of the collection in `folder`."""
        tensors = {"likelihood": self.likelihood, "deviation": self.deviation}
        write_atomically(folder / FILE, save(tensors, {"keys": json.dumps(keys)}))

    @classmethod
    def read(cls, folder: Path, keys: Sequence[str]) -> Baselines | None:
        """What `write` kept for the questions with these keys; None if that was not done.

        Raises CalibrationError when the file is damaged or of another collection.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                if json.loads(file.metadata()["keys"]) != list(keys):
                    raise ValueError
                return cls(file.get_tensor("likelihood"), file.get_tensor("deviation"))
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise CalibrationError(
                f"{str(path)!r} is damaged or of another collection: remove it and run "
                "`baselines` again",
                param="collected",
            ) from None


@torch.inference_mode()
def measure(checkpoint: Checkpoint, folder: Path, n_passes: int) -> None:
    """Write the baselines of the collection in `folder`, unless they are there.

    Raises CalibrationError when another model made the collection, or it holds no responses.
    """
    collection = CollectionFolder(folder).read()
    if Baselines.read(folder, collection.keys) is not None:
        return
    sequences = _sequences(checkpoint, collection, folder)
    likelihood = torch.zeros(len(sequences), 3, dtype=torch.float64)
    passes = torch.zeros(len(sequences), n_passes, dtype=torch.float64)
    with (
        torch.random.fork_rng(),
        tqdm(total=len(sequences), desc=folder.name, unit="question", file=sys.stderr) as progress,
    ):
        torch.manual_seed(0)
        for batch in _batches(sequences):
            picked = [sequences[n] for n in batch]
            likelihood[batch] = mean_likelihood(checkpoint.model, picked)
            with layer_dropout(checkpoint.model, _DROPOUT):
                for number in range(n_passes):
                    passes[batch, number] = -mean_likelihood(checkpoint.model, picked)[:, 0]
            progress.update(len(batch))
    Baselines(likelihood, passes.std(1)).write(folder, collection.keys)


def _sequences(checkpoint: Checkpoint, collection: Collection, folder: Path) -> list[Prompted]:
    """Each question as it was put to the model, and the tokens of its response."""
    record = collection.record
    if record.fingerprint != checkpoint.fingerprint:
        raise CalibrationError(
            f"{str(folder)!r} was collected with another model ({record.model_name!r} in "
            f"{record.fingerprint.dtype}): give that as --model and --dtype",
            param="model",
        )
    if record.context.judged == "conversation":
        raise CalibrationError(
            f"{str(folder)!r} holds conversations, of which only the question is kept: collect it "
            "with --judged question",
            param="collected",
        )
    if not all(collection.tokens):
        raise CalibrationError(
            f"{str(folder)!r} holds prompts without responses: collect it with a look at the "
            "response too, such as --looks prompt,end --max-tokens 16",
            param="collected",
        )
    text = Text(checkpoint.tokenizer, record.context.template)
    return [
        (text.encode_conversation([{"role": "user", "content": question.strip()}]), tokens)
        for question, tokens in zip(collection.texts, collection.tokens, strict=True)
    ]


def _batches(sequences: Sequence[Prompted]) -> Iterator[list[int]]:
    """Places in order of length, so that a batch pads little."""
    lengths = [len(prompt) + len(response) for prompt, response in sequences]
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[place] * (len(batch) + 1) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    yield batch
