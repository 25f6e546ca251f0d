"""Opening vLLM's engine in this process, and closing it."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from detector.backend import Observer
from detector.engine.model.checkpoint import Checkpoint, source_of
from detector.engine_record import EngineRecord
from detector.errors import CheckpointError, EngineError, TrajGuardError
from detector.trajectory import Look
from detector.vllm.options import require_allowed

if TYPE_CHECKING:
    import torch

    from detector.vllm.backend import VllmBackend

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the core runs on the thread that steps it
    "VLLM_CONFIGURE_LOGGING": "0",  # its log is written as ours is
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
}
_BESIDES = 8
"""Sequences that need no slot and may be under way: traces, and those that are judged ahead."""
_PREFILL_TOKENS_CPU = 512
_PREFILL_TOKENS = 2048
"""Positions of a step at most: the states of all of them are there at once."""
_BLOCK_CPU = 32
_MEMORY_SHARE = 2
"""What part of the memory that is free keys may take on a CPU."""

log = logging.getLogger(__name__)
_open: list[Any] = []


def require_installed() -> None:
    """Raise EngineError where there is no vLLM."""
    if find_spec("vllm") is None:
        raise EngineError(
            "vLLM is not installed here: it has an environment of its own, which `make serve-vllm` "
            "makes; or serve by TrajGuard's own engine (TRAJGUARD_ENGINE=own)",
            param="engine",
        )


def numerics_of(device: torch.device) -> str:
    """Which kernels a model's numbers come of: not the own engine's."""
    from vllm import __version__

    from detector.engine.model.numerics import numerics_of

    return f"vllm {__version__} on {numerics_of(device)}"


def record_of(device: torch.device) -> EngineRecord:
    """What runs a model on a device: vLLM."""
    from vllm import __version__

    return EngineRecord(
        name="vllm", device=device.type, numerics=numerics_of(device), version=__version__
    )


def open_backend(
    checkpoint: Checkpoint,
    *,
    looks: Collection[Look] = (),
    observer: Observer | None = None,
    n_slots: int = 16,
    max_length: int = 2048,
    max_queue: int = 256,
    max_queue_tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
    clock: Callable[[], float] | None = None,
) -> VllmBackend:
    """Have vLLM load a checkpoint's files again, in its dtype, beside the model that transformers
    loaded, which may be let go of then.

    Raises ValueError for an option that is not served (see `options`), UnsupportedModelError for a
    model that gives no states under vLLM, CheckpointError when vLLM cannot load it, EngineError
    when vLLM is not installed or runs in this process already.
    """
    chosen = dict(options or {})
    require_allowed(chosen)
    require_installed()
    if _open:
        raise EngineError("vLLM already runs in this process: close that backend first")
    os.environ.update(ENVIRONMENT)
    logging.getLogger("vllm").setLevel(logging.WARNING)

    import psutil
    from vllm import EngineArgs, LLMEngine
    from vllm.platforms import current_platform

    from detector.vllm.backend import VllmBackend
    from detector.vllm.worker import NAME, PoolingWorker

    config = checkpoint.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    # Whoever is traced draws one token too many, which vLLM wants a position for.
    length = min(max_length, positions - 1 if positions else max_length)
    is_cpu = current_platform.is_cpu()
    n_sequences = n_slots + _BESIDES
    prefill_tokens = _PREFILL_TOKENS_CPU if is_cpu else _PREFILL_TOKENS
    arguments: dict[str, Any] = {
        "max_num_batched_tokens": max(prefill_tokens, n_sequences),
        "enable_prefix_caching": True,
    }
    if is_cpu:
        wanted = n_sequences * (length + _BLOCK_CPU) * _position_bytes(checkpoint)
        free = psutil.virtual_memory().available // _MEMORY_SHARE
        arguments |= {
            "block_size": _BLOCK_CPU,
            "enforce_eager": True,
            "kv_cache_memory_bytes": min(wanted, free),
        }
    arguments |= chosen
    try:
        engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=source_of(checkpoint.name),
                dtype=str(checkpoint.model.dtype).removeprefix("torch."),
                worker_cls=NAME,
                distributed_executor_backend="uni",
                skip_tokenizer_init=True,
                generation_config="vllm",
                async_scheduling=False,
                disable_log_stats=True,
                seed=secrets.randbelow(1 << 31),
                # A part of the name under which vLLM keeps what it has compiled: a model that was
                # compiled without its states is another one.
                additional_config={"trajguard": "states of all layers"},
                max_model_len=length + 1,
                max_num_seqs=n_sequences,
                **arguments,
            )
        )
    except TrajGuardError:
        _clean_up()
        raise
    except (ValueError, RuntimeError, OSError) as error:
        _clean_up()
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"model {checkpoint.name!r} cannot be loaded by vLLM: {reason}. Serve it by "
            "TrajGuard's own engine (TRAJGUARD_ENGINE=own)",
            param="model",
        ) from None
    worker: Any = engine.model_executor.driver_worker.worker
    assert isinstance(worker, PoolingWorker)
    _open.append(engine)

    def close() -> None:
        if engine in _open:
            _open.remove(engine)
            engine.engine_core.shutdown()
            _clean_up()

    clocked = {} if clock is None else {"clock": clock}
    return VllmBackend(
        engine,
        worker,
        eos_ids=checkpoint.eos_ids,
        looks=looks,
        observer=observer,
        n_slots=n_slots,
        n_besides=_BESIDES,
        max_length=length,
        max_queue=max_queue,
        max_queue_tokens=max_queue_tokens or max_queue * length,
        close=close,
        **clocked,
    )


def _position_bytes(checkpoint: Checkpoint) -> int:
    """What keys and values of one position take, at most."""
    config: Any = checkpoint.model.config.get_text_config()
    dtype: torch.dtype = checkpoint.model.dtype
    n_heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    n_key_heads = getattr(config, "num_key_value_heads", None) or n_heads
    return int(2 * config.num_hidden_layers * n_key_heads * head_size * dtype.itemsize)


def _clean_up() -> None:
    """What vLLM's engine leaves in the process: its group of one, and memory."""
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
