"""Floor: decode steps beside the time that reading weights, keys and values alone takes.

The model is random and of a known shape, so that no weights need to be at hand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from calibration.bench.speed.step_times import decode_ms, medians
from calibration.bench.speed.throughput import N_PROMPT, prompts_of
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import DTYPES, Checkpoint, best_device, best_dtype
from detector.engine.model.default_model import default_checkpoint
from detector.engine.model.text import Text

SHAPES = {
    # The default model's.
    "135m": LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
    ),
    # Llama 2 7B's, with the default model's vocabulary.
    "7b": LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=49152,
        tie_word_embeddings=False,
    ),
}


_READ_BYTES = 1 << 30
"""To time memory: more than any cache holds."""


@dataclass(frozen=True)
class FloorPoint:
    """Milliseconds of a decode step of `n` requests, and of reading its memory once."""

    n: int
    guarded: float
    unguarded: float
    floor: float

    def __str__(self) -> str:
        return (
            f"{self.n:5} requests: {self.guarded:8.2f} ms guarded, {self.unguarded:8.2f} ms "
            f"unguarded, floor {self.floor:8.2f} ms; guarded is {self.guarded / self.floor:.2f} "
            f"times the floor, {1000 * self.n / self.guarded:.0f} tokens/s"
        )


def random_checkpoint(shape: str, dtype: str = "auto") -> Checkpoint:
    """A random model on the best device, with the default model's tokenizer."""
    device = best_device()
    torch.manual_seed(0)
    with device:
        config = SHAPES[shape]
        chosen = DTYPES[best_dtype(device) if dtype == "auto" else dtype]
        model = AutoModelForCausalLM.from_config(config, dtype=chosen)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(default_checkpoint())
    return Checkpoint.of(f"random {shape}", model, tokenizer)


def bandwidth(device: torch.device) -> float:
    """Bytes a second that one reduction reads, the best of 5."""
    values = torch.ones(_READ_BYTES // 4, device=device)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        values.sum().item()
        times.append(time.perf_counter() - began)
    return values.nbytes / min(times[1:])


def weight_bytes(model: PreTrainedModel) -> int:
    """What a decode step reads of the weights: all but embeddings that are only looked up."""
    read = sum(parameter.nbytes for parameter in model.parameters())
    if not model.config.tie_word_embeddings:
        read -= sum(parameter.nbytes for parameter in model.get_input_embeddings().parameters())
    return read


def floor(shape: str, batches: Sequence[int], dtype: str = "auto") -> Iterator[FloorPoint]:
    """One point a batch size, for prompts of 40 tokens."""
    checkpoint = random_checkpoint(shape, dtype)
    (prompt,) = prompts_of(Text(checkpoint.tokenizer), 1)
    rate = bandwidth(checkpoint.model.device)
    # An engine packs the weights, which then no longer are the model's parameters.
    weights = weight_bytes(checkpoint.model)
    engine = Engine(checkpoint, n_slots=1, max_length=N_PROMPT)
    of_prompt = engine.state_bytes.cache or 0
    engine.close()
    for n in batches:
        guarded, unguarded = medians(
            checkpoint, n, N_PROMPT, partial(decode_ms, n=n, prompt=prompt)
        )
        yield FloorPoint(n, guarded, unguarded, 1000 * (weights + n * of_prompt) / rate)
