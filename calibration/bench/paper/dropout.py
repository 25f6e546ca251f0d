"""Monte-Carlo dropout: a baseline that needs several passes, so the benchmark's alone.

Gal and Ghahramani (2016), arXiv 1506.02142, as a baseline of arXiv 2405.14039. Today's decoders
are trained without dropout, so it is put where GPT-2 has it: on what each layer adds to
its input. The passes are teacher-forced over the question and the response collected.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from calibration.collection import CollectionFolder
from detector.engine.collector import decoder_layers
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.text import Text
from detector.errors import CalibrationError

_PROBABILITY = 0.1
_BATCH_TOKENS = 2048


@contextmanager
def layer_dropout(model: Any, probability: float) -> Iterator[None]:
    """While open, each decoder layer's update of the hidden state goes through dropout."""

    def drop(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        dropped = before + nn.functional.dropout(after - before, probability)
        return (dropped, *output[1:]) if isinstance(output, tuple) else dropped

    layers = decoder_layers(model)
    handles = [layer.register_forward_hook(drop, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def mean_log_probability(
    model: Any, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> Tensor:
    """Mean log-probability, nats a token, of each response given its prompt: (n,)."""
    n = max(len(prompt) + len(response) for prompt, response in sequences)
    ids = torch.zeros(len(sequences), n, dtype=torch.long)
    mask = torch.zeros_like(ids)
    rows: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    for row, (prompt, response) in enumerate(sequences):
        length = len(prompt) + len(response)
        ids[row, :length] = torch.tensor([*prompt, *response])
        mask[row, :length] = 1
        rows += [row] * len(response)
        positions += range(len(prompt) - 1, length - 1)
        targets += list(response)
    device = model.device
    hidden = model.get_decoder()(input_ids=ids.to(device), attention_mask=mask.to(device))[0]
    logits = model.get_output_embeddings()(hidden[rows, positions]).float()
    chosen = logits.log_softmax(-1)[torch.arange(len(targets)), targets].double().cpu()
    sums = torch.zeros(len(sequences), dtype=torch.float64).index_add_(
        0, torch.tensor(rows), chosen
    )
    return sums / torch.tensor([len(response) for _, response in sequences])


@torch.inference_mode()
def measure(checkpoint: Checkpoint, folder: Path, n_passes: int) -> None:
    """Write the standard deviation over passes of each response's mean log-probability, beside
    the collection in `folder`, unless it is there.

    Raises CalibrationError when another model made the collection, or it holds no responses.
    """
    store = CollectionFolder(folder)
    collection = store.read()
    if store.deviation(collection.keys) is not None:
        return
    if collection.record.fingerprint != checkpoint.fingerprint:
        raise CalibrationError(
            f"{str(folder)!r} was collected with another model ({collection.record.model_name!r}): "
            "give that as --model",
            param="model",
        )
    if collection.record.context.judged == "conversation":
        raise CalibrationError(
            f"{str(folder)!r} holds conversations, of which only the question is kept: collect it "
            "with --judged question",
            param="collected",
        )
    text = Text(checkpoint.tokenizer, collection.record.context.template)
    end = (min(checkpoint.eos_ids),)
    sequences = [
        (text.encode_question(question), text.encode_response(response) or end)
        for question, response in zip(collection.texts, collection.responses, strict=True)
    ]
    passes = torch.zeros(len(sequences), n_passes, dtype=torch.float64)
    with (
        layer_dropout(checkpoint.model, _PROBABILITY),
        torch.random.fork_rng(devices=[]),
        tqdm(total=len(sequences), desc=folder.name, unit="question", file=sys.stderr) as progress,
    ):
        torch.manual_seed(0)
        for batch in _batches(sequences):
            picked = [sequences[n] for n in batch]
            for number in range(n_passes):
                passes[batch, number] = mean_log_probability(checkpoint.model, picked)
            progress.update(len(batch))
    store.write_deviation(collection.keys, passes.std(1))


def _batches(sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[list[int]]:
    """Places in order of length, so that a batch pads little."""
    lengths = [len(prompt) + len(response) for prompt, response in sequences]
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[place] * (len(batch) + 1) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    yield batch
