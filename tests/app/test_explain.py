"""Why a question was judged as it was: `/v1/score?explain`, and the page, on the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from detector.artifact import Artifact
from detector.engine.model.checkpoint import Checkpoint
from detector.explanation import NO_NEIGHBOURS
from tests.app.clients import (
    CHAT,
    IN_SCOPE,
    OUT_OF_SCOPE,
    SECRET,
    client_of,
    error_of,
    loaded_of,
    user,
)
from tests.app.recorded import recorded_app
from tests.app.serving import make_app
from tests.app.test_security import ENTRIES, bearer
from tests.explained import calibrated_with_neighbours

SCORE = "/v1/score"
PAGE = "/page/explain"


@pytest.fixture(scope="module")
def kept(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return calibrated_with_neighbours(checkpoint, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def app(kept: Artifact) -> FastAPI:
    return make_app(kept, mode="flag")


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


def explained(client: TestClient, question: str, **headers: str) -> dict[str, Any]:
    body = {"messages": user(question)}
    said: dict[str, Any] = client.post(f"{SCORE}?explain=true", json=body, headers=headers).json()
    return said


@pytest.mark.parametrize("question", [IN_SCOPE, OUT_OF_SCOPE])
def test_an_explanation_adds_up_and_has_the_nearest(
    client: TestClient, kept: Artifact, question: str
) -> None:
    said = explained(client, question)
    verdict, why = said["verdict"], said["explanation"]
    (look,) = verdict["looks"]
    assert (why["look"], why["name"], why["score"]) == ("prompt", look["name"], look["score"])
    assert sum(each["share"] for each in why["layers"]) == pytest.approx(look["score"])
    assert {each["layer"] for each in why["layers"]} == set(range(7))
    by_layer = {each["layer"]: each["measured"] for each in why["layers"]}
    assert [by_layer[layer] for layer in range(7)] == pytest.approx(look["distances"])
    distances = [each["distance"] for each in why["neighbours"]]
    assert distances == sorted(distances)
    assert kept.manifest.neighbours is not None
    texts = {each.id: each.text for each in kept.manifest.neighbours.questions}
    assert all(texts[each["id"]] == each["text"] for each in why["neighbours"])
    assert why["out_of_scope_kind"]["name"] == "generated"
    assert 0 < why["usual_distance"]["median"] < why["usual_distance"]["most"]
    assert why["note"] is None


def test_a_calibration_question_is_its_own_neighbour(client: TestClient, kept: Artifact) -> None:
    """Through the engine, prefilled as it was when it was collected."""
    assert kept.manifest.neighbours is not None
    for name in kept.manifest.neighbours.questions[:5]:
        assert name.text is not None
        why = explained(client, name.text)["explanation"]
        assert why["neighbours"][0]["id"] == name.id
        assert why["neighbours"][0]["distance"] < 0.01
        assert why["neighbours"][1]["distance"] > 0.01


def test_what_is_out_of_scope_lies_further_than_questions_in_scope_do(client: TestClient) -> None:
    far, near = (explained(client, each)["explanation"] for each in (OUT_OF_SCOPE, IN_SCOPE))
    assert far["neighbours"][0]["distance"] > far["usual_distance"]["most"]
    assert near["neighbours"][0]["distance"] < far["neighbours"][0]["distance"]


@pytest.mark.parametrize(
    ("query", "body"),
    [("?explain", {}), ("?explain=1", {}), ("?explain=True", {}), ("", {"explain": True})],
)
def test_however_it_is_asked_for(client: TestClient, query: str, body: dict[str, Any]) -> None:
    asked = {"messages": user(OUT_OF_SCOPE)} | body
    assert client.post(SCORE + query, json=asked).json()["explanation"]["neighbours"]


def test_who_does_not_ask_is_answered_as_before(client: TestClient) -> None:
    body = {"messages": user(OUT_OF_SCOPE)}
    plain = client.post(SCORE, json=body).json()
    for query in ("?explain=false", "?explain=0"):
        assert client.post(SCORE + query, json=body).json() == plain
    assert set(plain) == {"model", "verdict"}
    assert explained(client, OUT_OF_SCOPE)["verdict"] == plain["verdict"]
    error = error_of(client.post(f"{SCORE}?explain=perhaps", json=body), 400)
    assert "explain" in error["message"]


def test_an_artifact_without_neighbours_says_which_command_adds_them(artifact: Artifact) -> None:
    with client_of(make_app(artifact)) as client:
        why = explained(client, OUT_OF_SCOPE)["explanation"]
        assert why["note"] == NO_NEIGHBOURS
        assert "`trajguard neighbours`" in why["note"]
        assert (why["neighbours"], why["usual_distance"], why["out_of_scope_kind"]) == (
            [],
            None,
            None,
        )
        assert sum(each["share"] for each in why["layers"]) == pytest.approx(why["score"])


def test_keys_and_what_they_are_told(kept: Artifact) -> None:
    with client_of(make_app(kept, api_keys=ENTRIES)) as client:
        for role, sees_texts in (("user", False), ("privileged", True)):
            why = explained(client, OUT_OF_SCOPE, **bearer(role))["explanation"]  # type: ignore[arg-type]
            assert len(why["neighbours"]) == 5
            assert all(("text" in each) == sees_texts for each in why["neighbours"])
    with client_of(make_app(kept, api_keys=ENTRIES, verdict_detail="decision")) as client:
        for asked in ({"params": {"explain": "true"}}, {"json": {"explain": True}}):
            body = {"messages": user(SECRET)} | asked.get("json", {})
            response = client.post(
                SCORE, json=body, params=asked.get("params"), headers=bearer("user")
            )
            error = error_of(response, 403)
            assert (error["code"], error["param"]) == ("forbidden", "explain")
        assert "explanation" in explained(client, SECRET, **bearer("admin"))


# The page.


def asked(client: TestClient, question: str) -> dict[str, Any]:
    """What the page is told of a chat request."""
    body = {"messages": user(question), "max_tokens": 8}
    request_id = client.post(CHAT, json=body).headers["x-request-id"]
    told = client.post(PAGE, json={"request_id": request_id, "question": question})
    assert told.status_code == 200
    said: dict[str, Any] = told.json()
    return said


def test_the_page_explains_what_is_flagged_and_nothing_else(client: TestClient) -> None:
    said = asked(client, OUT_OF_SCOPE)
    assert said["verdict"]["is_ood"] is True
    assert said["why"]["note"] is None
    assert len(said["why"]["neighbours"]) == 5
    scored = explained(client, OUT_OF_SCOPE)["explanation"]
    if said["why"]["look"] == "prompt":
        for mine, theirs in zip(said["why"]["neighbours"], scored["neighbours"], strict=True):
            assert mine["id"] == theirs["id"]
            assert mine["distance"] == pytest.approx(theirs["distance"], abs=1e-4)
    assert asked(client, IN_SCOPE)["why"] is None


def test_what_is_kept_of_a_flag_is_no_text(
    app: FastAPI, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    asked(client, OUT_OF_SCOPE + SECRET)
    explained(client, SECRET)
    recent = app.state.trajguard.showing.recent
    told = recent.after(0)
    flagged = [each.event for each in told if each.event.places]
    assert flagged
    assert all(place.dim() == 1 for event in flagged for place in event.places.values())
    assert SECRET not in caplog.text
    assert SECRET not in repr(told)
    assert SECRET not in client.get("/metrics").text


def test_the_explained_question_counts_as_any_other(app: FastAPI, client: TestClient) -> None:
    before = app.state.trajguard.showing.recent.n
    explained(client, IN_SCOPE)
    assert app.state.trajguard.showing.recent.n == before + 1


def test_a_recorded_flag_is_explained_as_far_as_it_can_be() -> None:
    """No layers, no neighbours: the look and what is missing."""
    with client_of(recorded_app(mode="flag", scores=lambda ask, look: 2.0)) as client:
        said = asked(client, IN_SCOPE)
        assert (said["why"]["look"], said["why"]["layers"]) == ("prompt", [])
        assert said["why"]["note"] == NO_NEIGHBOURS
        assert loaded_of(client.app).artifact_id == "recorded-id"  # type: ignore[arg-type]
