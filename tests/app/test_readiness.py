"""What keeps a service from being ready, and what an engine that fails does to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.loading import load, start
from app.main import create_app
from app.settings import Settings
from detector.artifact import Artifact
from detector.engine.engine import Engine
from detector.engine.kernels import attention
from tests.app.clients import CHAT, IN_SCOPE, SECRET, client_of, error_of, user
from tests.app.serving import make_app
from tests.tiny import tiny_checkpoint

ASKED = {"messages": user(IN_SCOPE), "max_tokens": 8}


def test_engine_failure_fails_its_batch_and_the_next_goes_on(
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app(artifact)
    with client_of(app) as client:

        def broken(self: Engine, runs: object) -> None:
            raise RuntimeError(SECRET)

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "_decode", broken)
            error = error_of(client.post(CHAT, json=ASKED), 500)
            assert error["code"] == "engine_error"
            streamed = client.post(
                CHAT, json={"messages": user(IN_SCOPE), "max_tokens": 8, "stream": True}
            )
            assert '"code":"engine_error"' in streamed.text
            assert "[DONE]" not in streamed.text
        assert client.post(CHAT, json=ASKED).status_code == 200
    assert "engine step failed: RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def not_ready(settings: Settings, load: Any = load) -> dict[str, Any]:
    app = create_app(settings, load=load)
    with client_of(app) as client:
        assert client.get("/health").status_code == 200
        error_of(client.post(CHAT, json=ASKED), 503)
        response = client.get("/readyz")
        assert response.headers["retry-after"] == "1"
        return error_of(response, 503)


def test_artifact_of_another_model_is_never_ready(artifact: Artifact) -> None:
    other = tiny_checkpoint(seed=1)
    error = not_ready(Settings(), load=lambda s: start(s, artifact, other))
    assert "does not match 'tiny' in weights" in error["message"]


def test_missing_and_corrupt_artifacts_are_never_ready(artifact: Artifact, tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    assert "is not a file" in not_ready(Settings(artifact=missing))["message"]
    path = tmp_path / "a.safetensors"
    artifact.save(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert "damaged" in not_ready(Settings(artifact=path))["message"]


def test_alpha_that_cannot_be_kept_is_never_ready(artifact: Artifact) -> None:
    error = not_ready(Settings(alpha=0.001), load=lambda s: start(s, artifact, tiny_checkpoint()))
    assert "alpha 0.001 cannot be kept" in error["message"]
    assert "at least 999" in error["message"]


def test_model_that_the_engine_does_not_reproduce_is_never_ready(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_mask(module: Any, query: Any, key: Any, value: Any, mask: Any, **kw: Any) -> Any:
        return sdpa_attention_forward(module, query, key, value, None, **kw)

    checkpoint = tiny_checkpoint()
    attention.use_batched_attention(checkpoint.model)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, attention.NAME, without_mask)
    error = not_ready(Settings(), load=lambda s: start(s, artifact, checkpoint))
    assert "does not reproduce model 'tiny' in float32: the trajectory at" in error["message"]


def test_unexpected_failure_is_said_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(settings: Settings) -> Any:
        raise RuntimeError(SECRET)

    assert "RuntimeError" in not_ready(Settings(), load=broken)["message"]
