"""Several choices, log-probabilities and penalties over HTTP."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.settings import Settings
from detector.artifact import Artifact
from detector.detector import Detector
from detector.trajectory import PROMPT
from tests.app.clients import IN_SCOPE, OUT_OF_SCOPE, client_of, error_of, loaded_of, served, user
from tests.app.serving import engine_of, make_app

URL = "/v1/chat/completions"
SAMPLED = {"messages": user(IN_SCOPE), "temperature": 1.0, "max_tokens": 8}


@pytest.fixture(scope="module")
def app(artifact: Artifact) -> FastAPI:
    return make_app(artifact, n_slots=3)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


def complete(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post(URL, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def complete_stream(client: TestClient, **body: Any) -> list[Any]:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = client.post(URL, json=options | body)
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def texts(answer: dict[str, Any]) -> list[str]:
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    return [choice["message"]["content"] for choice in answer["choices"]]


def metric(client: TestClient, name: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


# Several choices


def test_choice_i_is_what_the_seed_plus_i_gives_alone(client: TestClient) -> None:
    answer = complete(client, **SAMPLED, n=5, seed=40)
    alone = [complete(client, **SAMPLED, seed=40 + index) for index in range(5)]
    assert texts(answer) == [texts(each)[0] for each in alone]
    assert len(set(texts(answer))) == 5
    usage = answer["usage"]
    assert usage["completion_tokens"] == sum(each["usage"]["completion_tokens"] for each in alone)
    assert usage["prompt_tokens"] == alone[0]["usage"]["prompt_tokens"]
    assert all("trajguard" not in choice for each in alone for choice in each["choices"])


def test_choices_stream_interleaved_and_say_the_same_as_json(client: TestClient) -> None:
    body = {**SAMPLED, "n": 3, "seed": 7, "logprobs": True, "top_logprobs": 2}
    answer = complete(client, **body)
    *chunks, usage = complete_stream(client, **body)
    of_choice: dict[int, list[Any]] = defaultdict(list)
    for chunk in chunks:
        (choice,) = chunk["choices"]
        of_choice[choice["index"]].append((choice, chunk))
    order = [chunk["choices"][0]["index"] for chunk in chunks]
    assert order != sorted(order)
    for choice in answer["choices"]:
        streamed = of_choice[choice["index"]]
        deltas = [each["delta"] for each, _ in streamed]
        assert deltas[0] == {"role": "assistant", "content": ""}
        assert "".join(delta.get("content", "") for delta in deltas) == choice["message"]["content"]
        told = [each["logprobs"]["content"] for each, _ in streamed if each["logprobs"]]
        assert [entry for each in told for entry in each] == choice["logprobs"]["content"]
        last, chunk = streamed[-1]
        assert last["finish_reason"] == choice["finish_reason"]
        assert chunk["trajguard"] == choice["trajguard"]
    assert usage["usage"] == answer["usage"]


def test_the_prompt_is_judged_once_for_all_choices(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    score = Detector.score

    def counted(self: Detector, look: Any, trajectories: torch.Tensor) -> Any:
        if look == PROMPT:
            shown.append(len(trajectories))
        return score(self, look, trajectories)

    monkeypatch.setattr(Detector, "score", counted)
    before = metric(client, "trajguard_decisions_total")
    answer = complete(client, messages=user(IN_SCOPE), max_tokens=6, n=4)
    assert shown == [1]
    assert metric(client, "trajguard_decisions_total") == before + 1
    verdicts = [choice["trajguard"] for choice in answer["choices"]]
    assert all(verdict["looks"][0] == verdicts[0]["looks"][0] for verdict in verdicts)
    assert [len(verdict["looks"]) for verdict in verdicts] == [2] * 4
    assert answer["trajguard"]["score"] == max(verdict["score"] for verdict in verdicts)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_prompt_refuses_every_choice(client: TestClient, stream: bool) -> None:
    body = {"messages": user(OUT_OF_SCOPE), "n": 4, "logprobs": True}
    if stream:
        *chunks, usage = complete_stream(client, **body)
        lasts = [chunk["choices"][0] for chunk in chunks if "trajguard" in chunk]
        assert sorted(choice["index"] for choice in lasts) == [0, 1, 2, 3]
    else:
        usage = complete(client, **body)
        lasts = usage["choices"]
        assert len(set(texts(usage))) == 1
        assert all(choice["message"]["refusal"] for choice in lasts)
    assert {choice["finish_reason"] for choice in lasts} == {"content_filter"}
    assert {str(choice["logprobs"]) for choice in lasts} == {"None"}
    assert usage["usage"]["completion_tokens"] == 0


def test_all_choices_fit_the_queue_or_none(artifact: Artifact) -> None:
    app = make_app(artifact, n_slots=1, max_queue=6, max_choices=9)
    with client_of(app) as client:
        error = error_of(client.post(URL, json={**SAMPLED, "n": 7}), 400)
        assert "n 7 is more than the 6" in error["message"]
        engine = engine_of(app)
        engine._schedule._max_queue = 2
        for stream in (False, True):
            response = client.post(URL, json={**SAMPLED, "n": 3, "stream": stream})
            assert error_of(response, 429)["code"] == "queue_full"
            assert engine.capacity().n_waiting == 0
        assert len(complete(client, **SAMPLED, n=2)["choices"]) == 2


def test_a_stop_text_ends_its_choice_alone(client: TestClient) -> None:
    body = {**SAMPLED, "n": 3, "seed": 11, "logprobs": True}
    full = complete(client, **body)
    whole = texts(full)
    stop = next(
        text[start : start + 2]
        for text in whole
        for start in range(2, len(text) - 1)
        if sum(text[start : start + 2] in other for other in whole) == 1
    )
    cut = complete(client, **body, stop=stop)
    assert texts(cut) == [text.split(stop)[0] for text in whole]
    for choice, before in zip(cut["choices"], full["choices"], strict=True):
        told, told_before = choice["logprobs"]["content"], before["logprobs"]["content"]
        assert told == told_before[: len(told)]
        n_bytes = len(choice["message"]["content"].encode())
        if stop in before["message"]["content"]:
            assert choice["finish_reason"] == "stop"
            assert sum(len(entry["bytes"]) for entry in told) <= n_bytes
        else:
            assert told == told_before


# Log-probabilities


def test_logprobs_have_openai_s_shape_and_the_model_s_values(
    app: FastAPI, client: TestClient
) -> None:
    answer = complete(client, **SAMPLED, seed=3, logprobs=True, top_logprobs=4)
    (choice,) = answer["choices"]
    content = choice["logprobs"]["content"]
    assert choice["logprobs"]["refusal"] is None
    assert len(content) == answer["usage"]["completion_tokens"] == 8
    loaded = loaded_of(app)
    token_of = {loaded.codec.token_bytes(token): token for token in range(1, 257)}
    prompt = loaded.codec.encode_question([IN_SCOPE]).tokens
    response = [token_of[bytes(entry["bytes"])] for entry in content]
    with torch.inference_mode():
        logits = engine_of(app).checkpoint.model(torch.tensor([[*prompt, *response]])).logits
    log_p = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    for entry, token, row in zip(content, response, log_p, strict=True):
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert entry["logprob"] == pytest.approx(float(row[token]), abs=1e-4)
        top = row.topk(4)
        likely = entry["top_logprobs"]
        assert [each["logprob"] for each in likely] == pytest.approx(top.values.tolist(), abs=1e-4)
        for each, expected in zip(likely, top.indices.tolist(), strict=True):
            assert bytes(each["bytes"]) == loaded.codec.token_bytes(expected)
            assert each["token"] == bytes(each["bytes"]).decode(errors="replace")


def test_logprobs_come_only_when_asked_for(client: TestClient) -> None:
    assert complete(client, **SAMPLED, logprobs=False)["choices"][0]["logprobs"] is None
    answer = complete(client, **SAMPLED, logprobs=True)
    assert all(not each["top_logprobs"] for each in answer["choices"][0]["logprobs"]["content"])


# Penalties and lengths


@pytest.mark.parametrize(
    "sampling",
    [
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -0.5},
        {"min_tokens": 2},
        {"ignore_eos": True},
    ],
)
def test_uncalibrated_sampling_excludes_the_response_look(
    client: TestClient, sampling: dict[str, Any]
) -> None:
    answer = complete(client, messages=user(IN_SCOPE), max_tokens=6, **sampling)
    prompt, response = answer["trajguard"]["looks"]
    assert prompt["excluded"] is None
    assert "sampling" in response["excluded"]


def test_values_that_change_nothing_are_calibrated(client: TestClient) -> None:
    neutral = {
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "min_tokens": 0,
        "ignore_eos": False,
        "n": 1,
        "logprobs": False,
        "top_logprobs": 0,
    }
    answer = complete(client, messages=user(IN_SCOPE), max_tokens=6, **neutral)
    plain = complete(client, messages=user(IN_SCOPE), max_tokens=6)
    for field in ("choices", "usage", "trajguard"):
        assert answer[field] == plain[field]
    absent = complete(client, messages=user(IN_SCOPE), max_tokens=6, **dict.fromkeys(neutral))
    assert absent["choices"] == plain["choices"]


def test_penalties_change_the_response(client: TestClient) -> None:
    body = {"messages": user(IN_SCOPE), "max_tokens": 40, "ignore_eos": True}
    plain = texts(complete(client, **body))
    for penalty in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert texts(complete(client, **body, **{penalty: 2.0})) != plain


# The official client


def test_openai_client_takes_choices_and_logprobs(artifact: Artifact) -> None:
    with served(make_app(artifact)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-") as sdk:
        asked: Any = {
            "model": "tiny",
            "messages": user(IN_SCOPE),
            "max_completion_tokens": 6,
            "n": 3,
            "seed": 5,
            "temperature": 0.9,
            "presence_penalty": 0.4,
            "frequency_penalty": 0.3,
            "logprobs": True,
            "top_logprobs": 3,
            "extra_body": {"repetition_penalty": 1.1, "min_tokens": 3},
        }
        answer = sdk.chat.completions.create(**asked)
        with sdk.chat.completions.stream(**asked) as stream:
            for _ in stream:
                pass
            streamed = stream.current_completion_snapshot
        assert len(answer.choices) == 3
        for choice, other in zip(answer.choices, streamed.choices, strict=True):
            assert choice.message.content == other.message.content
            assert choice.logprobs is not None
            assert other.logprobs is not None
            assert choice.logprobs.content
            assert choice.logprobs.content == other.logprobs.content
            assert len(choice.logprobs.content[0].top_logprobs) == 3


def test_the_limits_are_settings() -> None:
    assert (Settings().max_choices, Settings().timeout_seconds) == (16, 600)
