"""The start of a guarded `vllm serve`: what does not belong together, or cannot be guarded, is
refused before anything is loaded onto a device.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import AsyncEngineArgs, SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from app.load_settings import BadSettingError
from app.vllm_plugin.asking import sampling_of
from app.vllm_plugin.guardable import UnguardableError, require_guardable, require_server
from app.vllm_plugin.registering import endpoint, register
from app.vllm_plugin.starting import plugin_settings, start, started, stop_token, take_checkpoint
from detector.artifact import Artifact
from detector.backend import Sampling
from detector.errors import ArtifactMismatchError
from detector.trajectory import END, PROMPT
from detector.vllm.stopping import StopProcessor, StopProcessorV2, Stops, name_of
from detector.vllm.tickets import VARIABLE
from tests.vllm.opening import guarded, saved, tiny

SERVER = UsageContext.OPENAI_API_SERVER


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start changes is changed back."""
    monkeypatch.setattr(AsyncLLM, "generate", AsyncLLM.generate)
    monkeypatch.setattr(EngineArgs, "create_engine_config", EngineArgs.create_engine_config)
    monkeypatch.setattr("app.vllm_plugin.starting._started", [])
    monkeypatch.setattr("app.vllm_plugin.starting._loaded", [])
    for name in (VARIABLE, "VLLM_USE_V2_MODEL_RUNNER", "VLLM_PLUGINS"):
        monkeypatch.setenv(name, "0")


@pytest.fixture
def folder(tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The model's, with its artifact in the settings. It has no token that no response has."""
    artifact.save(tmp_path / "a.safetensors")
    monkeypatch.setenv("TRAJGUARD_ARTIFACT", str(tmp_path / "a.safetensors"))
    with saved(guarded()) as checkpoint:
        yield checkpoint.name


def begin(model: str, **arguments: Any) -> Any:
    said = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True, **arguments}
    given = AsyncEngineArgs(model=model, **said)
    return start(given, AsyncEngineArgs.create_engine_config, SERVER, headless=False)


def test_another_model_s_artifact_is_refused_as_by_the_service(folder: str) -> None:
    with (
        saved(tiny(seed=5)) as other,
        pytest.raises(ArtifactMismatchError, match="in weights"),
    ):
        begin(other.name)
    with pytest.raises(ArtifactMismatchError, match="in dtype"):
        begin(folder, dtype="bfloat16")


def test_an_artifact_that_was_not_seen_under_vllm_is_refused(
    folder: str, artifact: Artifact, tmp_path: Path
) -> None:
    manifest = artifact.manifest.model_copy(update={"revalidated": ()})
    Artifact.of(artifact.detector, manifest).save(tmp_path / "a.safetensors")
    with pytest.raises(ArtifactMismatchError, match=r"calibrated own, served vllm"):
        begin(folder)


def test_a_model_whose_every_token_is_text_is_refused(folder: str) -> None:
    with pytest.raises(UnguardableError, match="no token that no response has"):
        begin(folder)


def test_who_has_one_is_started_with_our_worker(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.vllm_plugin.starting.stop_token", lambda *_: 7)
    original = AsyncLLM.generate
    config = begin(folder)
    assert config.parallel_config.worker_cls.endswith("GuardingWorker")
    assert config.model_config.logits_processors[-1].endswith("StopProcessor")
    orders = json.loads(os.environ[VARIABLE])
    assert (orders["alpha"], orders["stop_token"]) == (0.05, 7)
    assert started().generate is original
    # Whoever asks before the guard is there gets nothing.
    with pytest.raises(UnguardableError):
        AsyncLLM.generate(None, None, None, "0")
    assert take_checkpoint().name == folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"worker_cls": "a.Worker"}, "--worker-cls"),
        ({"hf_overrides": {"rope_theta": 1.0}}, "--hf-overrides"),
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype fp8"),
        ({"load_format": "dummy"}, "--load-format dummy"),
        ({"enable_prompt_embeds": True}, "--enable-prompt-embeds"),
    ],
)
def test_arguments_that_cannot_be_guarded_are_refused_by_name(
    folder: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnguardableError, match=said):
        begin(folder, **arguments)


def config_with(**changed: Any) -> Any:
    """As much of a config of vLLM's as is looked at, with parts of it changed."""
    model: dict[str, Any] = {
        "quantization": None,
        "dtype": "torch.float32",
        "hf_overrides": {},
        "trust_remote_code": False,
        "tokenizer": "m",
        "model": "m",
        "runner_type": "generate",
        "enable_prompt_embeds": False,
    }
    parts: dict[str, dict[str, Any]] = {
        "model_config": model,
        "parallel_config": {"data_parallel_size": 1},
        "cache_config": {"cache_dtype": "auto"},
        "load_config": {"load_format": "auto"},
        "scheduler_config": {"async_scheduling": False},
    }
    whole = {"speculative_config": None, "lora_config": None, "kv_transfer_config": None}
    for name, value in changed.items():
        owner = next((part for part in parts if name in _FIELDS[part]), None)
        if owner is None:
            whole[name] = value
        else:
            parts[owner][name] = value
    made = {name: SimpleNamespace(**fields) for name, fields in parts.items()}
    return SimpleNamespace(**made, **whole)


_FIELDS = {
    "model_config": {"quantization", "trust_remote_code", "tokenizer", "runner_type", "revision"},
    "parallel_config": {
        "pipeline_parallel_size",
        "tensor_parallel_size",
        "data_parallel_size",
        "decode_context_parallel_size",
    },
    "cache_config": {"cache_dtype"},
    "load_config": {"load_format"},
    "scheduler_config": {"async_scheduling"},
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"speculative_config": object()}, "--speculative-config"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size 2"),
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size 2"),
        ({"decode_context_parallel_size": 2}, "--decode-context-parallel-size 2"),
        ({"data_parallel_size": 2}, "--data-parallel-size 2"),
        ({"lora_config": object()}, "--enable-lora"),
        ({"kv_transfer_config": object()}, "--kv-transfer-config"),
        ({"quantization": "fp8"}, "--quantization fp8"),
        ({"tokenizer": "other"}, "--tokenizer"),
        ({"trust_remote_code": True}, "--trust-remote-code"),
        ({"runner_type": "pooling"}, "--runner pooling"),
        ({"revision": "abc"}, "--revision"),
        ({"async_scheduling": True}, "--async-scheduling"),
    ],
)
def test_a_config_that_cannot_be_guarded_is_refused_by_name(
    changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnguardableError, match=said):
        require_guardable(config_with(**changed), {PROMPT, END})


def test_what_can_be_is_not() -> None:
    require_guardable(config_with(), {PROMPT, END})
    require_guardable(config_with(async_scheduling=True), {PROMPT, 4})


@pytest.mark.parametrize("name", ["VLLM_SERVER_DEV_MODE", "VLLM_USE_RUST_FRONTEND"])
def test_only_vllm_s_own_server_is_guarded(name: str) -> None:
    require_server(SERVER, headless=False, variables=SimpleNamespace())
    for usage, headless in ((UsageContext.LLM_CLASS, False), (None, False), (SERVER, True)):
        with pytest.raises(UnguardableError, match="guards `vllm serve` alone"):
            require_server(usage, headless=headless, variables=SimpleNamespace())
    with pytest.raises(UnguardableError, match=name):
        require_server(SERVER, headless=False, variables=SimpleNamespace(**{name: True}))


def test_settings_that_do_nothing_here_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAJGUARD_MODE", "flag")
    settings = plugin_settings()
    assert (settings.mode, settings.engine) == ("flag", "vllm")
    monkeypatch.setenv("TRAJGUARD_AUDIT", str(tmp_path / "audit"))
    with pytest.raises(BadSettingError, match="TRAJGUARD_AUDIT is set"):
        plugin_settings()


def test_the_token_that_ends_a_response_is_one_that_none_has() -> None:
    checkpoint = tiny()
    assert stop_token(checkpoint, 300) == 299
    checkpoint.tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<turn>", "<reserved_1>", "<other>"]}
    )
    checkpoint.tokenizer.chat_template += "<turn>"
    named = checkpoint.tokenizer.convert_tokens_to_ids("<reserved_1>")
    assert stop_token(checkpoint, len(checkpoint.tokenizer)) == named
    with pytest.raises(UnguardableError):
        stop_token(tiny(), 257)


@pytest.mark.parametrize("is_v2", [False, True])
def test_who_is_to_end_has_one_token_left_and_nobody_else_has_it(
    monkeypatch: pytest.MonkeyPatch, is_v2: bool
) -> None:
    """With either of vLLM's model runners."""
    assert name_of(is_v2=is_v2).endswith("V2") == is_v2
    logits = torch.zeros(3, 5)

    def applied() -> torch.Tensor:
        if is_v2:
            return StopProcessorV2(None, None).apply(logits.clone(), None)
        return StopProcessor(None, torch.device("cpu"), False).apply(logits.clone())

    assert torch.equal(applied(), logits)
    monkeypatch.setattr("detector.vllm.stopping.STOPS", Stops(token=4, rows=[1]))
    masked = applied()
    assert masked.softmax(-1)[1].tolist() == [0, 0, 0, 0, 1]
    assert masked.softmax(-1)[0].tolist() == [0.25, 0.25, 0.25, 0.25, 0]


def test_nobody_is_guarded_who_does_not_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service over vLLM loads plugins too, in an environment that has this one."""
    original = EngineArgs.create_engine_config
    for named in (None, "", "lora_resolver", "trajguard-other"):
        if named is None:
            monkeypatch.delenv("VLLM_PLUGINS")
        else:
            monkeypatch.setenv("VLLM_PLUGINS", named)
        register()
        assert EngineArgs.create_engine_config is original
    monkeypatch.setenv("VLLM_PLUGINS", "other, trajguard")
    register()
    registered = EngineArgs.create_engine_config
    assert registered is not original
    register()
    assert EngineArgs.create_engine_config is registered


def test_what_is_refused_at_the_start_ends_it_with_a_line(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "trajguard")
    register()
    arguments = EngineArgs(model=folder, dtype="float32")
    with pytest.raises(SystemExit, match=r"not started \[cannot_be_guarded\]: the plugin guards"):
        arguments.create_engine_config(UsageContext.LLM_CLASS)


def test_an_endpoint_without_a_guard_answers_nothing() -> None:
    with pytest.raises(UnguardableError, match="started before the guard"):
        asyncio.run(endpoint().init_state(None, None, None))


def test_what_vllm_draws_by_is_compared_with_what_was_calibrated() -> None:
    assert sampling_of(SamplingParams(temperature=0)) == Sampling()
    assert sampling_of(SamplingParams(temperature=0, min_tokens=2)) == Sampling(min_tokens=2)
    assert sampling_of(SamplingParams(temperature=0.5, top_k=3)) == Sampling(
        temperature=0.5, top_k=3
    )
    for otherwise in ({"min_p": 0.1}, {"logit_bias": {"3": 1.0}}, {"allowed_token_ids": [1]}):
        assert sampling_of(SamplingParams(temperature=0.5, **otherwise)) is None
