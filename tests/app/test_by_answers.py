"""Second opinions by answers, on the real engine with a tiny model."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from detector.artifact import Artifact
from detector.backend import Ask, Step
from tests.app.clients import CHAT, OUT_OF_SCOPE, client_of, loaded_of, user
from tests.app.leaver import Leaver
from tests.app.serving import engine_of, make_app
from tests.app.test_judging import metrics_of, risen
from tests.opined import ASKING, HIGH, LOW, tiny_nli, with_opinions

NAMES = ("uncertainty", "persuasion")


def asked(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post(CHAT, json={"messages": user(OUT_OF_SCOPE), "max_tokens": 8, **body})
    assert answer.status_code == 200, answer.text
    whole: dict[str, Any] = answer.json()
    return whole


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("calibrated", "outcome"), [(HIGH, "freed"), (LOW, "held")])
def test_what_is_no_more_uncertain_than_calibrated_is_freed(
    artifact: Artifact, name: str, calibrated: float, outcome: str
) -> None:
    app = make_app(with_opinions(artifact, calibrated), second_opinion=name)
    with client_of(app) as client:
        before = metrics_of(client)
        answer = asked(client)
        after = metrics_of(client)
    verdict = answer["trajguard"]
    assert verdict["is_ood"]
    assert verdict["decision"] == ("allow" if outcome == "freed" else "refuse")
    opinion = verdict["second_opinion"]
    assert (opinion["name"], opinion["outcome"]) == (name, outcome)
    assert opinion["p_value"] == (1.0 if outcome == "freed" else 1 / 40)
    n_prompts = 2 if name == "persuasion" else 1
    # Its prompts are read once each, and answers are no part of the usage that is told.
    assert opinion["tokens"] > n_prompts * len(OUT_OF_SCOPE)
    assert answer["usage"]["completion_tokens"] == (8 if outcome == "freed" else 0)
    assert risen(before, after, "trajguard_second_opinion_tokens_total") == {
        (name,): opinion["tokens"]
    }
    assert risen(before, after, "trajguard_tokens_total").get(("response",), 0.0) == (
        8.0 if outcome == "freed" else 0.0
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_of_the_engine(
    artifact: Artifact, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K answers to one prompt, or 2 K to two, drawn alike each time that the question comes."""
    app = make_app(with_opinions(artifact, LOW), second_opinion=name)
    submitted: list[tuple[Ask, ...]] = []
    with client_of(app) as client:
        engine = engine_of(app)
        plain = engine.submit

        def submit(*asks: Ask) -> None:
            submitted.append(asks)
            plain(*asks)

        monkeypatch.setattr(engine, "submit", submit)
        first = asked(client)["trajguard"]["second_opinion"]
        again = asked(client)["trajguard"]["second_opinion"]
    assert (again["score"], again["tokens"]) == (first["score"], first["tokens"])
    answers = [asks for asks in submitted if asks[0].uncounted]
    assert len(answers) == 2
    n = 2 * ASKING.n_answers if name == "persuasion" else ASKING.n_answers
    for asks in answers:
        assert len(asks) == n
        assert {ask.sampling.temperature for ask in asks} == {ASKING.temperature}
        assert {ask.max_tokens for ask in asks} == {ASKING.max_tokens}
        assert len({ask.seed for ask in asks}) == n
        assert sum(ask.first is None for ask in asks) == n // ASKING.n_answers
    assert [ask.seed for ask in answers[0]] == [ask.seed for ask in answers[1]]


def test_none_is_had_where_no_slot_holds_what_is_asked(artifact: Artifact) -> None:
    """A prompt with the example over a slot's length leaves the question flagged."""
    long = ASKING.model_copy(update={"instruction": "x" * 600})
    made = with_opinions(artifact, HIGH, asking=long)
    with client_of(make_app(made, second_opinion="uncertainty")) as client:
        verdict = asked(client)["trajguard"]
    assert verdict["decision"] == "refuse"
    assert verdict["second_opinion"]["failure"] == "context_length_exceeded"


def test_alpha_says_which_p_values_free(artifact: Artifact) -> None:
    made = with_opinions(artifact, LOW)
    for alpha, decision in ((0.02, "allow"), (0.03, "refuse")):
        app = make_app(made, second_opinion="uncertainty", second_opinion_alpha=alpha)
        with client_of(app) as client:
            assert asked(client)["trajguard"]["decision"] == decision


@pytest.mark.parametrize("name", NAMES)
def test_an_artifact_without_them_is_not_served(artifact: Artifact, name: str) -> None:
    with client_of(make_app(artifact, second_opinion=name)) as client:
        said = client.get("/readyz")
    assert said.status_code == 503
    assert "no second opinions calibrated" in said.text


def test_those_of_another_dtype_or_nli_model_are_not_served(
    artifact: Artifact, tmp_path: Path
) -> None:
    other = with_opinions(artifact, HIGH, dtype="bfloat16")
    nli = str(tiny_nli(tmp_path))
    for made, settings, said in (
        (other, {}, "calibrated in bfloat16"),
        (with_opinions(artifact, HIGH), {"second_opinion_nli": nli}, "name the same one"),
    ):
        app = make_app(made, second_opinion="uncertainty", **settings)
        with client_of(app) as client:
            answer = client.get("/readyz")
        assert answer.status_code == 503
        assert said in answer.text


def test_an_nli_model_that_is_no_such_thing_is_told(artifact: Artifact, tmp_path: Path) -> None:
    app = make_app(
        with_opinions(artifact, HIGH),
        second_opinion="uncertainty",
        second_opinion_nli=str(tmp_path),
    )
    with client_of(app) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "NLI model" in answer.text


def test_with_an_nli_model_answers_are_clustered_by_it(artifact: Artifact, tmp_path: Path) -> None:
    from detector.engine.model.nli import load_nli

    folder = str(tiny_nli(tmp_path))
    asking = ASKING.model_copy(update={"nli": load_nli(folder).identity})
    made = with_opinions(artifact, HIGH, asking=asking)
    app = make_app(made, second_opinion="uncertainty", second_opinion_nli=folder)
    with client_of(app) as client:
        opinion = asked(client)["trajguard"]["second_opinion"]
        assert loaded_of(app).manifest.second_opinion is not None
    assert opinion["outcome"] == "freed"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(
    artifact: Artifact, stream: bool
) -> None:
    """Its answers are cancelled in the engine, and the place that its opinion had is free."""
    long = ASKING.model_copy(update={"max_tokens": 400})
    app = make_app(
        with_opinions(artifact, HIGH, asking=long),
        second_opinion="uncertainty",
        second_opinion_at_once=1,
    )
    body = {"messages": user(OUT_OF_SCOPE), "max_tokens": 8, "stream": stream}
    with client_of(app) as client:
        engine = engine_of(app)
        ended: list[str] = []
        begun = threading.Event()
        plain = engine.step

        def step() -> list[Step]:
            steps = plain()
            ended.extend(str(each.finish) for each in steps if each.finish is not None)
            if any(each.ask.uncounted for each in steps):
                begun.set()
            return steps

        engine.step = step  # type: ignore[method-assign]
        leaver = Leaver(CHAT, body, at_once=False)

        async def leave() -> None:
            asking = asyncio.ensure_future(leaver.call(app))
            await asyncio.to_thread(begun.wait)
            leaver._begun.set()
            await asking

        before = metrics_of(client)
        assert client.portal is not None
        client.portal.call(leave)
        after = metrics_of(client)
        while engine.busy:
            client.get("/healthz")
        opinions = app.state.trajguard.opinions
    assert leaver.status == 499
    assert ended == ["judged", *["cancelled"] * ASKING.n_answers]
    assert risen(before, after, "trajguard_second_opinions_total") == {("left", "uncertainty"): 1.0}
    assert opinions._n_inside == 0
    assert not opinions._places.locked()
