"""The start of a guarded `vllm serve`: settings, artifact and model are held to each other first.

This is in the server's process, before that of vLLM's engine is made.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from app.environment import PREFIX
from app.load_settings import BadSettingError, load_settings
from app.loading import Guard, guard_of
from app.settings import Settings
from app.vllm_plugin.guardable import (
    UnguardableError,
    require_arguments,
    require_guardable,
    require_server,
)
from detector.engine.model.default_model import NAME as DEFAULT_MODEL
from detector.vllm.tickets import VARIABLE, Orders

if TYPE_CHECKING:
    from detector.engine.model.checkpoint import Checkpoint

APPLYING = frozenset(
    """
    alpha artifact guarantee mode on_prompt_failure on_response_failure refusal refusal_style
    request_alphas uncalibrated verdict_detail
    """.split()
)
"""The settings of the service that mean the same here."""

_TO_BE_TAKEN = ("reserved", "unused", "extra")
"""What special tokens are called that stand for nothing."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Started:
    """What the server answers by. `generate` is vLLM's own way to responses."""

    settings: Settings
    guard: Guard
    orders: Orders
    generate: Callable[..., Any]


_started: list[Started] = []
_loaded: list[Checkpoint] = []
"""The model as transformers loaded it, until the self-test is over."""


def started() -> Started:
    """Raises UnguardableError where the server was started without the guard."""
    if not _started:
        raise UnguardableError(
            "the server was started before the guard: TrajGuard's package is not whole, install "
            "it again",
            param="VLLM_PLUGINS",
        )
    return _started[-1]


def take_checkpoint() -> Checkpoint:
    """The model beside which vLLM's is tested, which is forgotten here."""
    return _loaded.pop()


def start(arguments: Any, create: Callable[..., Any], usage: Any, *, headless: bool) -> Any:
    """The config of a guarded server, by vLLM's own `create`.

    Raises BadSettingError, UnguardableError, and what the service raises at its start where
    artifact and model do not belong together.
    """
    import vllm.envs

    from detector import artifact as artifacts
    from detector.engine.model.checkpoint import source_of

    settings = plugin_settings()
    artifact = artifacts.load(settings.artifact)
    require_server(usage, headless=headless, variables=vllm.envs)
    require_arguments(arguments)
    if arguments.model == DEFAULT_MODEL:
        arguments.model = source_of(DEFAULT_MODEL)
    from detector.vllm.guarding_worker import NAME as WORKER
    from detector.vllm.stopping import name_of

    arguments.worker_cls = WORKER
    # A part of the name under which vLLM keeps what it has compiled.
    arguments.additional_config = {
        **(arguments.additional_config or {}),
        "trajguard": "states of all layers",
    }
    config = create(arguments, usage, headless)
    looks = {fitted.look for fitted in artifact.detector.looks}
    require_guardable(config, looks)
    processor = name_of(is_v2=config.use_v2_model_runner)
    theirs = config.model_config.logits_processors or ()
    config.model_config.logits_processors = [*theirs, processor]
    _start(settings, artifact, config)
    return config


def _start(settings: Settings, artifact: Any, config: Any) -> None:
    from torch import device
    from vllm.v1.engine.async_llm import AsyncLLM

    from detector.engine.model.checkpoint import best_device, load_checkpoint

    model = config.model_config
    dtype = str(model.dtype).removeprefix("torch.")
    checkpoint = load_checkpoint(model.model, dtype, device("cpu"))
    guard = guard_of(settings, artifact, checkpoint.identity, best_device(), judging=device("cpu"))
    orders = Orders(
        artifact=str(settings.artifact.absolute()),
        artifact_id=guard.artifact_id,
        alpha=guard.detector.alpha,
        guarantee=guard.detector.guarantee,
        alphas=tuple(guard.others),
        address=_address(),
        stop_token=stop_token(checkpoint, model.get_vocab_size()),
    )
    os.environ[VARIABLE] = json.dumps(asdict(orders))
    _started.append(Started(settings, guard, orders, AsyncLLM.generate))
    _loaded.append(checkpoint)
    AsyncLLM.generate = _unguarded


def plugin_settings() -> Settings:
    """Those of the environment and of TRAJGUARD_CONFIG's file. Raises BadSettingError for one that
    means nothing here, for nobody should think that it does.
    """
    settings = load_settings()
    for name in sorted(settings.model_fields_set - APPLYING):
        variable = PREFIX + name.upper()
        raise BadSettingError(
            f"{variable} is set, which is the service's alone and does nothing in vLLM's own "
            f"server: unset it; those that do: {', '.join(sorted(APPLYING))}",
            param=variable,
        )
    return settings.model_copy(update={"engine": "vllm"})


def stop_token(checkpoint: Checkpoint, n_tokens: int) -> int:
    """One that no response has: a row of the vocabulary beyond the tokenizer's, or a special token
    that stands for nothing. Raises UnguardableError where there is none.
    """
    tokenizer = checkpoint.tokenizer
    if len(tokenizer) < n_tokens:
        return n_tokens - 1
    template = str(tokenizer.chat_template or "")
    spare = {
        token: said.content
        for token, said in tokenizer.added_tokens_decoder.items()
        if said.special
        and token not in checkpoint.eos_ids
        and token not in (tokenizer.bos_token_id, tokenizer.eos_token_id)
        and said.content not in template
    }
    named = [token for token, text in spare.items() if any(n in text for n in _TO_BE_TAKEN)]
    if not spare:
        raise UnguardableError(
            f"model {checkpoint.name!r} has no token that no response has, by which one could be "
            "ended: serve it by TrajGuard's own service (TRAJGUARD_ENGINE=vllm)",
            param="model",
        )
    return max(named or spare)


def _address() -> str:
    """Where the worker tells what it has judged: in a folder that is this user's alone."""
    folder = tempfile.mkdtemp(prefix="trajguard-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return f"ipc://{folder}/judged"


def _unguarded(*_: Any, **__: Any) -> Any:
    raise UnguardableError("nothing is answered here before the guard is there")
