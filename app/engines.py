"""What runs the model: the engine that the settings name, once it has passed its self-test.

Torch and what runs on it are imported in here, while loading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.settings import Settings
from detector.answers import Entails
from detector.backend import Backend
from detector.engine_record import EngineRecord
from detector.judge import Judge

if TYPE_CHECKING:
    from torch import device as Device  # noqa: N812 (a type, and called one)

    from detector.engine.model.checkpoint import Checkpoint
    from detector.trajectory import Look


def require_installed(settings: Settings) -> None:
    """Raise EngineError where the engine is not installed, before the model is loaded."""
    if settings.engine == "vllm":
        from detector.vllm.opening import require_installed

        require_installed()


def loading_device(settings: Settings) -> Device | None:
    """Where transformers loads the model, None for the best there is; vLLM loads it once more, to
    where it runs.
    """
    from torch import device

    return device("cpu") if settings.engine == "vllm" else None


def running_device(settings: Settings, checkpoint: Checkpoint) -> Device:
    """Where the model runs, and trajectories are."""
    from detector.engine.model.checkpoint import best_device

    return best_device() if settings.engine == "vllm" else checkpoint.model.device


def record(settings: Settings, device: Device) -> EngineRecord:
    """What runs the model, as artifacts have it."""
    if settings.engine == "vllm":
        from detector.vllm.opening import record_of as record_of_vllm

        return record_of_vllm(device)
    from detector.engine.model.numerics import record_of

    return record_of(device)


def open_backend(
    settings: Settings, checkpoint: Checkpoint, looks: frozenset[Look], judge: Judge
) -> Backend:
    """Raises SelfTestError when the engine does not reproduce the model."""
    opened = _vllm if settings.engine == "vllm" else _own
    return opened(settings, checkpoint, looks, judge)


def _own(
    settings: Settings, checkpoint: Checkpoint, looks: frozenset[Look], judge: Judge
) -> Backend:
    from detector.engine.engine import Engine
    from detector.engine.self_test import self_test

    self_test(checkpoint)
    return Engine(
        checkpoint,
        looks=looks,
        observer=judge.observe,
        n_slots=settings.n_slots,
        max_length=settings.max_length,
        max_queue=settings.max_queue,
        max_queue_tokens=settings.max_queue_tokens,
    )


def _vllm(
    settings: Settings, checkpoint: Checkpoint, looks: frozenset[Look], judge: Judge
) -> Backend:
    from detector.engine.self_test import self_test
    from detector.vllm.opening import open_backend

    backend = open_backend(
        checkpoint,
        looks=looks,
        observer=judge.observe,
        n_slots=settings.n_slots,
        max_length=settings.max_length,
        max_queue=settings.max_queue,
        max_queue_tokens=settings.max_queue_tokens,
        options=settings.vllm_options,
    )
    try:
        self_test(checkpoint, backend.seen_by)
    except BaseException:
        backend.close()
        raise
    return backend


def entails_of(settings: Settings) -> tuple[Entails | None, str]:
    """The NLI model that the settings name, loaded once, and its identity; none without one."""
    if settings.second_opinion_nli is None:
        return None, ""
    from detector.engine.model.nli import load_nli

    nli = load_nli(settings.second_opinion_nli)
    return nli, nli.identity
