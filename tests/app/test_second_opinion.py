"""A flag at the prompt and a second opinion: what it frees goes on as allowed, what it holds stays
flagged, and whatever fails leaves stage one's decision.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.audit import rows_of
from app.second_opinion.giving import Flagged
from app.second_opinion.known import KINDS, Kind
from detector.backend import Ask
from detector.errors import EngineError
from detector.opinion import Opinion
from detector.trajectory import Look
from tests.app.clients import CHAT, IN_SCOPE, SECRET, client_of, error_of, user
from tests.app.recorded import END_TOKEN, RESPONSE, recorded_app
from tests.app.test_judging import SCORE, metrics_of, risen

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
REFUSAL = "This question is outside the scope that this service answers."
FREES = Opinion("uncertainty", frees=True, score=0.25, p_value=0.75, tokens=40)
HOLDS = Opinion("uncertainty", frees=False, score=2.5, p_value=0.125, tokens=30)

Give = Callable[[Flagged], Awaitable[Opinion]]


def flagged(ask: Ask, look: Look) -> float:
    return 5.0 if look < 2 else 0.0


def flagged_there_and_at_the_response(ask: Ask, look: Look) -> float:
    return 5.0


class Scripted:
    """Gives what it is told to, and remembers what it was asked about."""

    def __init__(self, give: Give | Opinion) -> None:
        self._give = give
        self.asked: list[Flagged] = []

    async def give(self, flagged: Flagged) -> Opinion:
        self.asked.append(flagged)
        return self._give if isinstance(self._give, Opinion) else await self._give(flagged)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Give | Opinion], Scripted]:
    def with_kind(give: Give | Opinion) -> Scripted:
        scripted = Scripted(give)
        kind = Kind(require=lambda *_: None, make=lambda _: scripted)
        monkeypatch.setitem(KINDS, "uncertainty", kind)
        return scripted

    return with_kind


def app_with(**settings: Any) -> Any:
    return recorded_app(**{"second_opinion": "uncertainty", "scores": flagged, **settings})


def asked(client: TestClient, **body: Any) -> Any:
    return client.post(CHAT, json={"messages": user(IN_SCOPE), "max_tokens": 64, **body})


def streamed(text: str) -> str:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )


@pytest.mark.parametrize("mode", ["flag", "refuse"])
def test_what_is_freed_goes_on_as_allowed(
    script: Callable[..., Scripted], mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scripted = script(FREES)
    path = tmp_path / "audit.sqlite"
    with (
        caplog.at_level(logging.INFO, logger="app.judging"),
        client_of(app_with(mode=mode, audit=path)) as client,
    ):
        before = metrics_of(client)
        answer = asked(client)
        after = metrics_of(client)
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == RESPONSE
    verdict = body["trajguard"]
    assert verdict["decision"] == "allow"
    assert verdict["is_ood"], "stage one's verdict is told as it was"
    assert [look["look"] for look in verdict["looks"]] == ["prompt", "4"], "each look counts once"
    opinion = verdict["second_opinion"]
    assert opinion.pop("seconds") >= 0
    assert opinion == {
        "name": "uncertainty",
        "outcome": "freed",
        "score": 0.25,
        "p_value": 0.75,
        "tokens": 40,
        "failure": None,
        "reason": None,
    }
    assert answer.headers["x-trajguard-decision"] == "allow"
    assert answer.headers["x-trajguard-second-opinion"] == "uncertainty:freed"
    assert not body["moderation"]["input"]["results"][0]["flagged"]
    (only,) = scripted.asked
    assert only.messages == user(IN_SCOPE)
    assert only.ask.prompt == tuple(IN_SCOPE.encode())
    assert only.verdict.score == 5.0
    assert risen(before, after, "trajguard_second_opinions_total") == {
        ("freed", "uncertainty"): 1.0
    }
    assert risen(before, after, "trajguard_second_opinion_tokens_total") == {("uncertainty",): 40.0}
    assert risen(before, after, "trajguard_second_opinion_seconds_count") == {("uncertainty",): 1.0}
    assert risen(before, after, "trajguard_decisions_total") == {
        tuple(sorted(("allow", mode, "prompt"))): 1.0
    }
    (row,) = rows_of(path)
    assert (row["outcome"], row["second_opinion"], row["second_p_value"]) == (
        "allow",
        "uncertainty:freed",
        0.75,
    )
    assert "uncertainty=freed" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_held_stays_refused(script: Callable[..., Scripted], stream: bool) -> None:
    script(HOLDS)
    with client_of(app_with()) as client:
        before = metrics_of(client)
        answer = asked(client, stream=stream)
        after = metrics_of(client)
    if stream:
        assert streamed(answer.text) == REFUSAL
    else:
        body = answer.json()
        assert body["choices"][0]["finish_reason"] == "content_filter"
        assert body["trajguard"]["decision"] == "refuse"
        assert body["trajguard"]["second_opinion"]["outcome"] == "held"
        assert body["usage"]["completion_tokens"] == 0
    assert answer.headers["x-trajguard-decision"] == "refuse"
    assert answer.headers["x-trajguard-second-opinion"] == "uncertainty:held"
    assert risen(before, after, "trajguard_decisions_total") == {
        ("prompt", "refuse", "refuse"): 1.0
    }
    assert risen(before, after, "trajguard_second_opinions_total") == {("held", "uncertainty"): 1.0}


def test_what_is_held_is_answered_in_mode_flag(script: Callable[..., Scripted]) -> None:
    script(HOLDS)
    with client_of(app_with(mode="flag")) as client:
        body = asked(client).json()
    assert body["choices"][0]["message"]["content"] == RESPONSE
    assert body["trajguard"]["decision"] == "flag"
    assert body["trajguard"]["second_opinion"]["outcome"] == "held"


@pytest.mark.parametrize("mode", ["flag", "refuse"])
def test_a_stream_says_nothing_before_the_opinion(
    script: Callable[..., Scripted], mode: str
) -> None:
    script(FREES)
    with client_of(app_with(mode=mode)) as client:
        answer = asked(client, stream=True)
    assert streamed(answer.text) == RESPONSE
    assert answer.headers["x-trajguard-decision"] == "allow"


@pytest.mark.parametrize("mode", ["flag", "refuse"])
def test_a_later_flag_at_the_response_counts(script: Callable[..., Scripted], mode: str) -> None:
    script(FREES)
    app = app_with(mode=mode, scores=flagged_there_and_at_the_response)
    with client_of(app) as client:
        body = asked(client).json()
    assert body["trajguard"]["decision"] == mode
    assert body["trajguard"]["second_opinion"]["outcome"] == "freed"
    if mode == "refuse":
        assert body["choices"][0]["finish_reason"] == "content_filter"
        assert body["usage"]["completion_tokens"] == 3, "it was refused at the look at 4 tokens"


def test_a_response_that_cannot_be_judged_ends_what_was_freed(
    script: Callable[..., Scripted],
) -> None:
    script(FREES)

    def scores(ask: Ask, look: Look) -> float:
        return 5.0 if look < 2 else math.nan

    with client_of(app_with(scores=scores)) as client:
        body = asked(client).json()
    assert body["trajguard"]["decision"] == "fail_closed"
    assert body["choices"][0]["finish_reason"] == "content_filter"


def test_choices_share_an_opinion_and_prompts_have_one_each(
    script: Callable[..., Scripted],
) -> None:
    async def by_prompt(flagged: Flagged) -> Opinion:
        return FREES if flagged.messages[0]["content"] == "one" else HOLDS

    scripted = script(by_prompt)
    with client_of(app_with()) as client:
        chat = asked(client, n=3).json()
        body = {"prompt": ["one", "two"], "n": 2, "max_tokens": 64}
        texts = client.post(COMPLETIONS, json=body).json()
    assert [choice["finish_reason"] for choice in chat["choices"]] == ["content_filter"] * 3
    assert [each.messages[0]["content"] for each in scripted.asked] == [IN_SCOPE, "one", "two"]
    assert [choice["text"] for choice in texts["choices"]] == [RESPONSE] * 2 + [REFUSAL] * 2
    assert [choice["trajguard"]["decision"] for choice in texts["choices"]] == [
        "allow",
        "allow",
        "refuse",
        "refuse",
    ]
    assert texts["trajguard"]["decision"] == "refuse", "the choice of most concern is told"


@pytest.mark.parametrize("stream", [False, True])
def test_responses_too(script: Callable[..., Scripted], stream: bool) -> None:
    script(FREES)
    with client_of(app_with()) as client:
        answer = client.post(RESPONSES, json={"input": IN_SCOPE, "stream": stream})
    assert answer.headers["x-trajguard-second-opinion"] == "uncertainty:freed"
    assert RESPONSE in answer.text


@pytest.mark.parametrize(
    ("opinion", "flags", "decision"), [(FREES, 0, "allow"), (HOLDS, 1, "refuse")]
)
def test_what_is_judged_without_an_answer_is_decided_alike(
    script: Callable[..., Scripted], opinion: Opinion, flags: int, decision: str
) -> None:
    scripted = script(opinion)
    with client_of(app_with()) as client:
        scored = client.post(SCORE, json={"messages": user(IN_SCOPE)}).json()
        detected = client.post("/api/v1/text/contents", json={"contents": [IN_SCOPE, "two"]}).json()
    assert scored["verdict"]["decision"] == decision
    assert scored["verdict"]["second_opinion"]["outcome"] == opinion.outcome
    assert [len(found) for found in detected] == [flags, flags]
    assert len(scripted.asked) == 3


@pytest.mark.parametrize("mode", ["shadow", "refuse"])
def test_none_is_asked_for_in_shadow_mode_or_of_what_is_not_flagged(
    script: Callable[..., Scripted], mode: str
) -> None:
    scripted = script(FREES)
    scores = flagged if mode == "shadow" else (lambda ask, look: 0.0)
    with client_of(app_with(mode=mode, scores=scores)) as client:
        body = asked(client).json()
    assert body["choices"][0]["message"]["content"] == RESPONSE
    assert not scripted.asked
    if mode == "refuse":
        assert body["trajguard"]["second_opinion"] is None


async def _raises(flagged: Flagged) -> Opinion:
    raise ValueError(SECRET)


async def _raises_known(flagged: Flagged) -> Opinion:
    raise EngineError("broken")


async def _hangs(flagged: Flagged) -> Opinion:
    await asyncio.Event().wait()
    raise AssertionError


async def _without_a_number(flagged: Flagged) -> Opinion:
    return Opinion("uncertainty", frees=True, score=math.nan)


@pytest.mark.parametrize("mode", ["flag", "refuse"])
@pytest.mark.parametrize(
    ("give", "why"),
    [
        (_raises, "ValueError"),
        (_raises_known, "engine_error"),
        (_hangs, "there was none within 0.05 seconds"),
        (_without_a_number, "its score is NaN or infinite"),
    ],
)
def test_whatever_fails_leaves_the_flag(
    script: Callable[..., Scripted],
    give: Give,
    why: str,
    mode: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script(give)
    with client_of(app_with(mode=mode, second_opinion_seconds=0.05)) as client:
        before = metrics_of(client)
        answer = asked(client)
        after = metrics_of(client)
    verdict = answer.json()["trajguard"]
    assert verdict["decision"] == mode
    assert verdict["second_opinion"]["outcome"] == "failed"
    assert verdict["second_opinion"]["failure"] == why
    assert answer.headers["x-trajguard-second-opinion"] == "uncertainty:failed"
    assert risen(before, after, "trajguard_second_opinions_total") == {
        ("failed", "uncertainty"): 1.0
    }
    assert SECRET not in caplog.text


def test_more_than_may_wait_stay_flagged(script: Callable[..., Scripted]) -> None:
    """One at a time and four that wait: of six prompts at once, the last is not asked about."""
    freed = asyncio.Event()

    async def all_at_once(flagged: Flagged) -> Opinion:
        if flagged.messages[0]["content"] == "0":
            await freed.wait()
        return FREES

    scripted = script(all_at_once)
    app = app_with(second_opinion_at_once=1)
    inner = app.state.trajguard.opinions._metrics.told

    def told(name: str, opinion: Opinion | None) -> None:
        inner(name, opinion)
        freed.set()

    app.state.trajguard.opinions._metrics.told = told
    with client_of(app) as client:
        body = {"prompt": [str(n) for n in range(6)], "max_tokens": 64}
        choices = client.post(COMPLETIONS, json=body).json()["choices"]
    decisions = [choice["trajguard"]["decision"] for choice in choices]
    assert decisions == ["allow"] * 5 + ["refuse"]
    failure = choices[5]["trajguard"]["second_opinion"]["failure"]
    assert failure == "too many second opinions are asked for already"
    assert len(scripted.asked) == 5


def test_an_answer_that_the_opinion_has_made_goes_out(script: Callable[..., Scripted]) -> None:
    made = Opinion("uncertainty", frees=True, response=(*b"It is 18.", END_TOKEN))
    unfinished = replace(made, response=tuple(b"It is"), finish="length")
    for mode in ("flag", "refuse"):
        script(made)
        with client_of(app_with(mode=mode)) as client:
            whole = asked(client).json()
            stream = asked(client, stream=True).text
        script(unfinished)
        with client_of(app_with(mode=mode)) as client:
            cut = asked(client, max_tokens=5).json()
        assert whole["choices"][0]["message"]["content"] == "It is 18."
        assert whole["choices"][0]["finish_reason"] == "stop"
        assert whole["trajguard"]["decision"] == "allow"
        assert whole["usage"]["completion_tokens"] == 10
        assert streamed(stream) == "It is 18."
        assert cut["choices"][0]["message"]["content"] == "It is"
        assert cut["choices"][0]["finish_reason"] == "length"


def test_the_clients_time_is_kept(script: Callable[..., Scripted]) -> None:
    """A client's own time is less than a second opinion may take: it goes on to be flagged, and a
    freed one that has no time left is told so."""
    script(_hangs)
    with client_of(app_with()) as client:
        answer = asked(client, trajguard={"timeout_seconds": 0.05})
        assert answer.json()["trajguard"]["second_opinion"]["outcome"] == "failed"

    async def late(flagged: Flagged) -> Opinion:
        reconsidered.append(flagged)
        return FREES

    reconsidered: list[Flagged] = []
    script(late)
    with client_of(app_with()) as client:
        opinions = client.app.state.trajguard.opinions  # type: ignore[attr-defined]
        about = opinions.about

        async def slowly(*given: Any) -> Opinion:
            opinion: Opinion = await about(*given)
            await asyncio.sleep(given[2])
            return opinion

        opinions.about = slowly
        error = error_of(asked(client, trajguard={"timeout_seconds": 0.05}), 504)
    assert error["code"] == "timeout"
    assert len(reconsidered) == 1


def test_without_detail_the_outcome_alone_is_told(script: Callable[..., Scripted]) -> None:
    script(FREES)
    with client_of(app_with(verdict_detail="decision")) as client:
        verdict = asked(client).json()["trajguard"]
    assert verdict["second_opinion"] == {"name": "uncertainty", "outcome": "freed"}


def test_an_opinion_that_could_not_be_had_frees_nothing() -> None:
    with pytest.raises(ValueError, match="frees nothing"):
        Opinion("uncertainty", frees=True, failure="broken")
