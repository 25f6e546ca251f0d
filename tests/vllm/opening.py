"""Opens vLLM's backend as the tests of the own engine open that: on a model that is in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from app.loading import Loaded, start
from app.main import create_app
from app.settings import Settings
from detector.artifact import Artifact
from detector.backend import Ask, Finish, Step
from detector.engine.model.checkpoint import Checkpoint
from detector.vllm.backend import VllmBackend
from detector.vllm.opening import open_backend
from tests.tiny import tiny_checkpoint

# vLLM's attention on CPUs knows no heads of fewer than 32 numbers.
tiny: Callable[..., Checkpoint] = partial(tiny_checkpoint, hidden_size=128)
guarded: Callable[[], Checkpoint] = partial(tiny, seed=2)
"""One whose prompts alone tell the tests' questions apart."""


def opened(
    checkpoint: Checkpoint, *, prefill_tokens: int | None = None, **options: Any
) -> VllmBackend:
    """A model of the tests' own is saved to a folder first, which vLLM loads."""
    chosen = dict(options.pop("options", {}))
    if "compilation_config" not in chosen:
        chosen.setdefault("enforce_eager", True)  # the default on CPUs alone
    if prefill_tokens is not None:
        chosen["max_num_batched_tokens"] = prefill_tokens
    if checkpoint.name != "tiny":
        return open_backend(checkpoint, options=chosen, **options)
    with saved(checkpoint) as on_disk:
        return open_backend(on_disk, options=chosen, **options)


@contextmanager
def saved(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The same, with files that vLLM loads it from, called as before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / checkpoint.name
        checkpoint.model.save_pretrained(path)
        checkpoint.tokenizer.save_pretrained(path)
        yield replace(checkpoint, name=str(path))


def make_app(artifact: Artifact, **settings: object) -> FastAPI:
    """As `tests.app.serving.make_app` does, by vLLM."""
    chosen = Settings.model_validate({"max_length": 512, "engine": "vllm", **settings})

    def load(settings: Settings) -> Loaded:
        with saved(guarded()) as checkpoint:
            return start(settings, artifact, checkpoint)

    return create_app(chosen, load=load)


def run(backend: VllmBackend, *asks: Ask) -> dict[Ask, list[Step]]:
    """Everything that happens to these."""
    steps: dict[Ask, list[Step]] = {ask: [] for ask in asks}
    backend.submit(*asks)
    while backend.busy:
        for step in backend.step():
            steps[step.ask].append(step)
    return steps


def tokens_of(steps: list[Step]) -> list[int]:
    return [step.token for step in steps if step.token is not None]


def finish_of(steps: list[Step]) -> Finish | None:
    return steps[-1].finish
