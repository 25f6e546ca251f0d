"""Services over vLLM with settings of their own, one at a time, and clients that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.artifact import Artifact
from tests.app.clients import IN_SCOPE, OUT_OF_SCOPE, client_of, user
from tests.app.test_chat import (
    test_a_request_is_judged_at_the_alpha_that_it_asks_for,
    test_concurrent_clients_get_what_they_would_get_alone,
    test_modes,
    test_openai_client_creates_and_streams,
)
from tests.explained import calibrated_with_neighbours
from tests.vllm.conftest import held_under_vllm
from tests.vllm.opening import guarded, make_app

__all__ = [
    "test_a_request_is_judged_at_the_alpha_that_it_asks_for",
    "test_concurrent_clients_get_what_they_would_get_alone",
    "test_modes",
    "test_openai_client_creates_and_streams",
]


@pytest.fixture(autouse=True)
def over_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.app.test_chat.make_app", make_app)


def test_conversations_are_scored_as_they_are_judged(artifact: Artifact) -> None:
    """A trace of the prompt alone, beside a generation."""
    with client_of(make_app(artifact)) as client:
        scored = client.post("/v1/score", json={"messages": user(IN_SCOPE)})
        body = {"messages": user(IN_SCOPE), "max_tokens": 8}
        answered = client.post("/v1/chat/completions", json=body)
    assert scored.status_code == answered.status_code == 200, scored.text
    verdicts = scored.json()["verdict"], answered.json()["trajguard"]
    looks = [verdict["looks"][0]["score"] for verdict in verdicts]
    assert looks[0] == pytest.approx(looks[1], abs=1e-4)


def test_verdicts_are_explained(tmp_path: Path) -> None:
    """A question that is kept is where the own engine saw it."""
    kept = held_under_vllm(calibrated_with_neighbours(guarded(), tmp_path))
    assert kept.manifest.neighbours is not None
    name = kept.manifest.neighbours.questions[0]
    assert name.text is not None
    with client_of(make_app(kept, mode="flag")) as client:
        said = client.post("/v1/score?explain", json={"messages": user(name.text)}).json()
        body = {"messages": user(OUT_OF_SCOPE), "max_tokens": 4}
        flagged = client.post("/v1/chat/completions", json=body)
        assert flagged.json()["trajguard"]["is_ood"]
        asked = {"request_id": flagged.headers["x-request-id"], "question": OUT_OF_SCOPE}
        page = client.post("/page/explain", json=asked).json()
    nearest = said["explanation"]["neighbours"][0]
    assert (nearest["id"], nearest["text"]) == (name.id, name.text)
    assert nearest["distance"] < 0.01
    assert len(page["why"]["neighbours"]) == 5


def test_settings_that_vllm_is_not_served_with_are_refused_by_name(artifact: Artifact) -> None:
    with pytest.raises(ValueError, match="'tensor_parallel_size' is not served"):
        make_app(artifact, vllm_options={"tensor_parallel_size": 2})
