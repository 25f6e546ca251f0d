"""What of vLLM's can be guarded in its own server, and what is refused by name at its start."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from detector.errors import TrajGuardError
from detector.trajectory import END, Look

_PARALLEL = "the states of one process are only a part of the model's"
_OTHER_MODEL = "it makes the model another one than was calibrated"
_ONE_SERVER = "verdicts are told to one server"
_WEIGHTS = ("auto", "hf", "safetensors")


class UnguardableError(TrajGuardError):
    """A deployment of vLLM that cannot be guarded as it is."""

    code = "cannot_be_guarded"


def require_server(usage: Any, *, headless: bool, variables: Any) -> None:
    """Raises UnguardableError where it is not `vllm serve` that starts, or with what reaches round
    the guard.
    """
    if getattr(usage, "value", None) != "OPENAI_API_SERVER" or headless:
        raise UnguardableError(
            "the plugin guards `vllm serve` alone, with its own HTTP server: leave 'trajguard' out "
            "of VLLM_PLUGINS for everything else",
            param="VLLM_PLUGINS",
        )
    for name, why in (
        ("VLLM_SERVER_DEV_MODE", "its routes change weights and reach the worker"),
        ("VLLM_USE_RUST_FRONTEND", "its server is not the one that the plugin is in"),
        ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", _OTHER_MODEL),
    ):
        if getattr(variables, name, False):
            raise UnguardableError(f"{name} is set ({why}): unset it", param=name)


def require_arguments(arguments: Any) -> None:
    """Raises UnguardableError for what was said to vLLM that its config no longer tells."""
    if arguments.worker_cls != "auto":
        raise UnguardableError(
            "--worker-cls names another worker, and the guard is in its own: leave it out",
            param="worker_cls",
        )
    n_servers = getattr(arguments, "_api_process_count", 1)
    if n_servers > 1:
        raise _unguardable("--api-server-count", n_servers, _ONE_SERVER)


def require_guardable(config: Any, looks: Collection[Look]) -> None:
    """Raises UnguardableError, naming the option, for a config of vLLM's under which trajectories
    are not what they were in calibration, or nobody sees them.
    """
    for option, value, why in _refused(config, looks):
        raise _unguardable(option, value, why)


def _refused(config: Any, looks: Collection[Look]) -> Iterator[tuple[str, Any, str]]:
    model, parallel = config.model_config, config.parallel_config
    if config.speculative_config is not None:
        yield "--speculative-config", None, "rows of tokens that were drafted and rejected count"
    for name in ("pipeline", "tensor", "prefill_context", "decode_context"):
        size = getattr(parallel, f"{name}_parallel_size", 1)
        if size > 1:
            yield f"--{name.replace('_', '-')}-parallel-size", size, _PARALLEL
    if parallel.data_parallel_size > 1:
        yield "--data-parallel-size", parallel.data_parallel_size, "run several replicas"
    if config.lora_config is not None:
        yield "--enable-lora", None, _OTHER_MODEL
    if model.quantization is not None:
        yield "--quantization", model.quantization, _OTHER_MODEL
    if config.cache_config.cache_dtype not in ("auto", str(model.dtype).removeprefix("torch.")):
        yield "--kv-cache-dtype", config.cache_config.cache_dtype, _OTHER_MODEL
    if model.hf_overrides:
        yield "--hf-overrides", None, _OTHER_MODEL
    if model.trust_remote_code:
        yield "--trust-remote-code", None, "code that comes with a model is not run"
    if config.load_config.load_format not in _WEIGHTS:
        yield (
            "--load-format",
            config.load_config.load_format,
            "the weights' digest is that of the safetensors checkpoint",
        )
    if model.tokenizer != model.model:
        yield "--tokenizer", None, "another tokenizer writes other questions"
    for name in ("revision", "tokenizer_revision", "code_revision"):
        if getattr(model, name, None) is not None:
            yield f"--{name.replace('_', '-')}", None, "name a folder that holds that revision"
    if model.runner_type != "generate":
        yield "--runner", model.runner_type, "there is nothing to guard"
    if model.enable_prompt_embeds:
        yield "--enable-prompt-embeds", None, "embeddings tell no question"
    if config.kv_transfer_config is not None:
        yield "--kv-transfer-config", None, "what other engines have run nobody has seen"
    if END in looks and config.scheduler_config.async_scheduling:
        yield (
            "--async-scheduling",
            None,
            "the artifact judges where responses end, and a step would begin before it is known "
            "that they do; start with --no-async-scheduling",
        )


def _unguardable(option: str, value: Any, why: str) -> UnguardableError:
    said = option if value is None else f"{option} {value}"
    name = option.removeprefix("--").replace("-", "_")
    return UnguardableError(f"{said} cannot be guarded ({why}): leave it out", param=name)
