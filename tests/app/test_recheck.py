"""The second opinion `recheck`: answered, criticised and answered again before a byte goes out."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.audit import rows_of
from app.second_opinion.known import require_second_opinion
from app.settings import Settings
from detector.backend import Ask, Step
from detector.engine_record import EngineRecord
from detector.errors import ArtifactMismatchError
from detector.manifest import Context, Fingerprint, Manifest, Place
from detector.recheck_record import Rechecking
from detector.trajectory import Look
from tests.app.clients import CHAT, IN_SCOPE, client_of, loaded_of, user
from tests.app.leaver import Leaver
from tests.app.recorded import recorded_app, recorded_manifest
from tests.app.test_judging import SCORE, metrics_of, risen
from tests.app.test_second_opinion import COMPLETIONS, REFUSAL, RESPONSES, streamed
from tests.checking_model import CheckingModel, record_of

Scores = Callable[[Ask, Look], float]


def scored(first: float = 0.5, second: float = 0.25, question: float = 5.0) -> Scores:
    """Of the question at its prompt, and of the two answers at the response."""

    def scores(ask: Ask, look: Look) -> float:
        if look < 2:
            return question
        return second if bytes(ask.response or ()).startswith(b"It is 7.") else first

    return scores


def app_with(model: CheckingModel | Callable[[Ask], Sequence[int]], **settings: Any) -> Any:
    given: dict[str, Any] = {
        "second_opinion": "recheck",
        "scores": scored(),
        "manifest": {"recheck": record_of()},
        "response": model,
    }
    return recorded_app(**(given | settings))


def asked(client: TestClient, **body: Any) -> Any:
    return client.post(CHAT, json={"messages": user(IN_SCOPE), "max_tokens": 64, **body})


@pytest.mark.parametrize("mode", ["flag", "refuse"])
def test_the_second_answer_goes_out_in_place_of_the_refusal(mode: str, tmp_path: Path) -> None:
    model, path = CheckingModel(), tmp_path / "audit.sqlite"
    with client_of(app_with(model, mode=mode, audit=path)) as client:
        before = metrics_of(client)
        answer = asked(client)
        after = metrics_of(client)
    body = answer.json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == "It is 7."
    assert choice["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["prompt_tokens"] == len(IN_SCOPE), "usage is of what the client gets"
    assert usage["completion_tokens"] == len("It is 7.") + 1
    verdict = body["trajguard"]
    assert verdict["decision"] == "allow"
    looks = [(look["look"], look["score"]) for look in verdict["looks"]]
    assert looks == [("prompt", 5.0), ("4", 0.25)], "the looks are of the answer that goes out"
    opinion = verdict["second_opinion"]
    assert (opinion["name"], opinion["outcome"]) == ("recheck", "freed")
    assert (opinion["score"], opinion["p_value"], opinion["reason"]) == (0.25, 0.5, None)
    assert opinion["tokens"] > 3 * len(IN_SCOPE), "the cost is all that was read and generated"
    assert answer.headers["x-trajguard-second-opinion"] == "recheck:freed"
    assert risen(before, after, "trajguard_second_opinion_tokens_total") == {
        ("recheck",): float(opinion["tokens"])
    }
    assert risen(before, after, "trajguard_second_opinions_total") == {("freed", "recheck"): 1.0}
    (row,) = rows_of(path)
    assert (row["outcome"], row["second_opinion"]) == ("allow", "recheck:freed")
    rounds = [prompt for prompt in model.asked if "Is it right" in prompt]
    assert len(rounds) == 2, "one critique, and what is asked after it"


@pytest.mark.parametrize("mode", ["flag", "refuse"])
def test_streams_say_nothing_before_it_is_decided(mode: str) -> None:
    with client_of(app_with(CheckingModel(), mode=mode)) as client:
        text = asked(client, stream=True).text
        held = client.post(RESPONSES, json={"input": IN_SCOPE, "stream": True}).text
    assert streamed(text) == "It is 7."
    assert "It is 5." not in text + held
    assert "It is 7." in held


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (scored(0.25, 0.5), "the second answer is more OOD than the first"),
        (scored(2.0, 1.5), "the second answer is flagged by its own looks"),
    ],
)
def test_what_is_not_sent_is_refused_as_it_was(scores: Scores, reason: str, stream: bool) -> None:
    with client_of(app_with(CheckingModel(), scores=scores)) as client:
        answer = asked(client, stream=stream)
    assert answer.headers["x-trajguard-decision"] == "refuse"
    assert "It is" not in answer.text
    if stream:
        assert streamed(answer.text) == REFUSAL
    else:
        opinion = answer.json()["trajguard"]["second_opinion"]
        assert (opinion["outcome"], opinion["reason"]) == ("held", reason)
        assert answer.json()["usage"]["completion_tokens"] == 0


def test_in_mode_flag_the_first_answer_goes_out_flagged_where_the_second_does_not() -> None:
    app = app_with(CheckingModel(), mode="flag", scores=scored(0.25, 0.5))
    with client_of(app) as client:
        body = asked(client).json()
    assert body["choices"][0]["message"]["content"] == "It is 5."
    assert body["trajguard"]["decision"] == "flag"
    assert body["trajguard"]["second_opinion"]["outcome"] == "held"


def test_a_question_that_is_not_flagged_is_answered_once() -> None:
    model = CheckingModel()
    with client_of(app_with(model, scores=scored(question=0.0))) as client:
        body = asked(client).json()
    assert body["choices"][0]["message"]["content"] == "It is 5."
    assert body["trajguard"]["second_opinion"] is None
    assert model.asked == [IN_SCOPE]


@pytest.mark.parametrize(
    ("scores", "failure"),
    [
        (scored(0.5, math.nan), "engine_error"),
        (scored(math.nan, 0.5), "engine_error"),
    ],
)
def test_what_cannot_be_judged_stays_refused(scores: Scores, failure: str) -> None:
    with client_of(app_with(CheckingModel(), scores=scores)) as client:
        body = asked(client).json()
    assert body["trajguard"]["decision"] == "refuse"
    assert body["choices"][0]["message"]["content"] == REFUSAL
    opinion = body["trajguard"]["second_opinion"]
    assert (opinion["outcome"], opinion["failure"]) == ("failed", failure)


def test_a_round_that_does_not_fit_stays_refused() -> None:
    long = record_of(asking=Rechecking(check="{p_value}" + "x" * 500, again="{question}"))
    with client_of(app_with(CheckingModel(), manifest={"recheck": long})) as client:
        opinion = asked(client).json()["trajguard"]["second_opinion"]
    assert (opinion["outcome"], opinion["failure"]) == ("failed", "context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (
            {"messages": [{"role": "system", "content": "Be brief."}, *user(IN_SCOPE)]},
            "a recheck was measured on questions asked alone",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "add"}}]},
            "a recheck was measured on questions asked alone",
        ),
        (
            {"response_format": {"type": "json_object"}},
            "a recheck answers in plain text, and the response is held to a form",
        ),
        ({"logprobs": True}, "a recheck tells no log-probabilities"),
    ],
)
def test_what_is_no_question_as_those_measured_is_not_asked_again(
    body: dict[str, Any], failure: str
) -> None:
    model = CheckingModel()
    with client_of(app_with(model, context=Context())) as client:
        opinion = asked(client, **body).json()["trajguard"]["second_opinion"]
    assert (opinion["outcome"], opinion["failure"]) == ("failed", failure)
    assert not model.asked, "nothing was generated"


def test_choices_get_the_one_answer_and_short_ones_are_cut_where_the_client_says() -> None:
    with client_of(app_with(CheckingModel())) as client:
        choices = asked(client, n=2).json()["choices"]
        (cut,) = asked(client, max_tokens=5).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["It is 7."] * 2
    assert (cut["message"]["content"], cut["finish_reason"]) == ("It is", "length")


def test_where_nothing_is_answered_nobody_is_asked() -> None:
    model = CheckingModel()
    with client_of(app_with(model)) as client:
        verdict = client.post(SCORE, json={"messages": user(IN_SCOPE)}).json()["verdict"]
    assert verdict["decision"] == "refuse"
    assert verdict["second_opinion"] is None
    assert not model.asked


def test_the_moderation_beside_an_answer_is_of_that_answer() -> None:
    with client_of(app_with(CheckingModel(), mode="flag", scores=scored(2.0, 0.5))) as client:
        body = asked(client).json()
    assert body["trajguard"]["second_opinion"]["outcome"] == "freed"
    moderation = body["moderation"]
    assert not moderation["input"]["results"][0]["flagged"]
    assert not moderation["output"]["results"][0]["flagged"]


def test_a_client_that_leaves_during_the_critique_frees_the_engine() -> None:
    """Its round never ends by itself: what is asked of the engine ends because the client left."""
    begun = asyncio.Event()

    def endless(ask: Ask) -> Sequence[int]:
        return b"on and on "

    long = record_of(asking=Rechecking(check="{p_value}", again="{question}", max_tokens=400))
    app = app_with(endless, manifest={"recheck": long})
    with client_of(app) as client:
        before = metrics_of(client)
        backend = loaded_of(app).engine._backend
        step = backend.step
        assert client.portal is not None
        loop = client.portal.call(asyncio.get_running_loop)

        def watched() -> list[Step]:
            steps = step()
            if any(each.token is not None for each in steps):
                loop.call_soon_threadsafe(begun.set)
            return steps

        backend.step = watched  # type: ignore[method-assign]
        body = {"messages": user(IN_SCOPE), "max_tokens": 400}
        leaver = Leaver(CHAT, body, at_once=False)
        leaver._begun = begun
        client.portal.call(leaver.call, app)
        after = metrics_of(client)
        engine = loaded_of(app).engine
        while engine.capacity().n_running or engine.capacity().n_waiting:
            client.get("/healthz")
    assert leaver.status is None or leaver.status == 499
    assert risen(before, after, "trajguard_second_opinions_total") == {("left", "recheck"): 1.0}


def test_one_that_takes_too_long_leaves_the_refusal() -> None:
    def endless(ask: Ask) -> Sequence[int]:
        return b"on "

    long = record_of(asking=Rechecking(check="{p_value}", again="{question}", max_tokens=400))
    app = app_with(endless, manifest={"recheck": long}, second_opinion_seconds=1e-6)
    with client_of(app) as client:
        body = asked(client, max_tokens=400).json()
    assert body["trajguard"]["decision"] == "refuse"
    assert body["trajguard"]["second_opinion"]["outcome"] == "failed"


def manifest_with(**fields: Any) -> Manifest:
    return recorded_manifest(["prompt"], Context(), **fields)


@pytest.mark.parametrize(
    ("fields", "dtype", "match"),
    [
        ({}, "float32", "nobody has measured .* `trajguard recheck`"),
        (
            {"recheck": record_of(allowed=False)},
            "float32",
            r"does not allow the second opinion 'recheck' \(answers are worse\)",
        ),
        ({"recheck": record_of()}, "bfloat16", "measured in float32 .* served in bfloat16"),
    ],
)
def test_it_is_refused_at_the_start_where_the_artifact_does_not_allow_it(
    fields: dict[str, Any], dtype: str, match: str
) -> None:
    settings = Settings.model_validate({"second_opinion": "recheck"})
    place = Place.model_construct(
        fingerprint=Fingerprint.model_construct(dtype=dtype), engine=EngineRecord()
    )
    with pytest.raises(ArtifactMismatchError, match=match) as raised:
        require_second_opinion(settings, manifest_with(**fields), place)
    assert raised.value.param == "second_opinion"


def test_it_is_served_where_the_artifact_allows_it() -> None:
    settings = Settings.model_validate({"second_opinion": "recheck"})
    place = Place.model_construct(
        fingerprint=Fingerprint.model_construct(dtype="float32"), engine=EngineRecord()
    )
    require_second_opinion(settings, manifest_with(recheck=record_of()), place)


def test_completions_have_no_chat_to_go_on_with() -> None:
    """A prompt under no template is asked again under one only where the two are the same."""
    with client_of(app_with(CheckingModel())) as client:
        encode = loaded_of(client.app).codec.encode_prompt  # type: ignore[arg-type]
        loaded_of(client.app).codec.encode_prompt = (  # type: ignore[method-assign,arg-type]
            lambda prompt, most=None: (*encode(prompt), 32)
        )
        body = client.post(COMPLETIONS, json={"prompt": IN_SCOPE, "max_tokens": 64}).json()
    assert body["choices"][0]["text"] == REFUSAL
    opinion = body["trajguard"]["second_opinion"]
    assert opinion["failure"] == "a recheck was measured on questions asked alone"
    assert json.dumps(body).count("It is") == 0
