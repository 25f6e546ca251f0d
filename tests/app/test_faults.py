"""Scoring that fails on the real engine: the request it fails for is refused, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient
from torch import Tensor

from detector.artifact import Artifact
from detector.detector import Detector
from detector.gaussian import LayerGaussians
from tests.app.clients import CHAT, IN_SCOPE, OUT_OF_SCOPE, SECRET, client_of, loaded_of, user
from tests.app.serving import make_app

QUESTIONS = [IN_SCOPE.replace("Rosa", name) for name in ("Ada", "Ben", "Cleo", "Dan")]


@pytest.fixture(scope="module")
def app(artifact: Artifact) -> FastAPI:
    return make_app(artifact)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


def verdict_of(client: TestClient, content: str) -> dict[str, Any]:
    response = client.post(CHAT, json={"messages": user(content), "max_tokens": 8})
    assert response.status_code == 200, response.text
    verdict: dict[str, Any] = response.json()["trajguard"]
    return verdict


@pytest.mark.parametrize("field", ["location", "scale"])
def test_a_score_that_is_nan_is_never_allowed(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Not of the model's making: its numbers are finite."""
    for look in loaded_of(app).detector.looks:
        monkeypatch.setitem(look.__dict__, field, torch.tensor([torch.nan], dtype=torch.float64))
    for content in (IN_SCOPE, OUT_OF_SCOPE):
        verdict = verdict_of(client, content)
        assert (verdict["decision"], verdict["is_ood"]) == ("fail_closed", None)


def test_what_scoring_raises_for_one_fails_that_one_of_a_batch(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [verdict_of(client, content) for content in QUESTIONS]
    states: list[Tensor] = []
    distances = LayerGaussians.distances

    def recording(self: LayerGaussians, trajectories: Tensor) -> Tensor:
        states.append(trajectories[0, 1])
        return distances(self, trajectories)

    with monkeypatch.context() as patch:
        patch.setattr(LayerGaussians, "distances", recording)
        verdict_of(client, QUESTIONS[1])
    poisonous = states[0]

    def raising(self: LayerGaussians, trajectories: Tensor) -> Tensor:
        if bool(torch.isclose(trajectories[:, 1], poisonous, atol=1e-4).all(1).any()):
            raise ArithmeticError(SECRET)
        return distances(self, trajectories)

    monkeypatch.setattr(LayerGaussians, "distances", raising)
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        found = list(pool.map(lambda content: verdict_of(client, content), QUESTIONS))
    assert [verdict["decision"] for verdict in found] == [
        "fail_closed" if index == 1 else verdict["decision"]
        for index, verdict in enumerate(expected)
    ]
    assert found[1]["looks"][0]["failure"] == "judging raised ArithmeticError"
    assert "scoring failed at look prompt: ArithmeticError" in caplog.text
    assert SECRET not in caplog.text


def test_what_judging_raises_fails_closed_too(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def raising(self: Detector, looks: object, group: object = None) -> None:
            raise ZeroDivisionError(SECRET)

        patch.setattr(Detector, "judge", raising)
        verdict = verdict_of(client, IN_SCOPE)
    assert (verdict["decision"], verdict["stage"]) == ("fail_closed", "prompt")
    assert verdict["threshold"] is None
    assert verdict["looks"][-1]["failure"] == "judging raised ZeroDivisionError"
    assert verdict_of(client, IN_SCOPE)["decision"] != "fail_closed"
