"""The plugin for vLLM's server without vLLM: a server and an engine that only look like its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.testclient import TestClient

from app.asking.admission import MAX_BODY_BYTES, Admission
from app.loading import Guard
from app.settings import Settings
from app.vllm_plugin.asking import Asking
from app.vllm_plugin.calls import Call, Calls
from app.vllm_plugin.guardable import UnguardableError
from app.vllm_plugin.guarded import GuardedEngine
from app.vllm_plugin.guarded import Request as Guarded
from app.vllm_plugin.metrics import PluginMetrics
from app.vllm_plugin.middleware import Answering, GuardMiddleware
from app.vllm_plugin.starting import Started
from app.writing.guarded import NOT_JUDGED
from detector.backend import Ask
from detector.judge import Judge, Judgement
from detector.manifest import Context
from detector.trajectory import PROMPT, Look, look_name
from detector.vllm.tickets import Orders, Ticket, told
from tests.app.clients import CHAT, SECRET, client_of, error_of, user
from tests.app.recorded import (
    RecordedDetector,
    _FittedLook,
    recorded_app,
    recorded_manifest,
    recorded_settings,
)
from tests.app.recorded_codec import RecordedCodec

if TYPE_CHECKING:
    from detector.detector import Detector

STOP_TOKEN = 999
TEXT = "abcdefgh"
QUESTION = "How many?"
FAR = 3.0
LOOKS: tuple[Look, ...] = (PROMPT, 4)


@dataclass
class Engine:
    """Gives a letter a step, and tells of looks as the worker does: `scores` by look, none of what
    is `silent`.
    """

    scores: dict[Look, float]
    silent: bool = False
    broken: str | None = None
    calls: Calls | None = None
    params: list[Any] = field(default_factory=list)

    async def generate(self, prompt: Any, params: Any, request_id: str) -> AsyncGenerator[Any]:
        self.params.append(params)
        ticket = Ticket.read(json.loads(json.dumps(params.extra_args)))
        assert ticket is not None
        judge = Judge(cast("Detector", detector()))
        ask, judgement = Ask((1,)), ticket.judgement()
        judge.watch(ask, judgement)
        whole: list[int] = []
        for n_tokens, letter in enumerate(TEXT, start=1):
            if n_tokens in self.scores:
                self._look(judge, ask, n_tokens, ticket, judgement)
            token = STOP_TOKEN if judgement.ended else ord(letter)
            whole.append(token)
            finished = judgement.ended or n_tokens == len(TEXT)
            is_delta = params.output_kind.name == "DELTA"
            if is_delta or finished:
                tokens = [token] if is_delta else whole
                shown = "".join(chr(each) for each in tokens if each != STOP_TOKEN)
                yield SimpleNamespace(
                    outputs=[
                        SimpleNamespace(
                            index=0,
                            text=shown,
                            token_ids=tokens,
                            finish_reason="stop" if finished else None,
                            stop_reason=STOP_TOKEN if judgement.ended else None,
                        )
                    ]
                )
            if finished:
                return

    def _look(
        self, judge: Judge, ask: Ask, look: Look, ticket: Ticket, judgement: Judgement
    ) -> None:
        if self.broken is not None:
            judge.fail(look, ask, self.broken)
        else:
            judge.observe(look, [ask], cast("Any", [self.scores[look]]))
        if not self.silent:
            assert self.calls is not None
            said = {"call": ticket.call, "judged": {"0": told(judgement)}}
            self.calls.hear(json.dumps(said).encode())


def detector() -> RecordedDetector:
    return RecordedDetector(tuple(map(_FittedLook, LOOKS)))


def params_of(body: dict[str, Any]) -> Any:
    """As vLLM makes them of a body."""
    return SimpleNamespace(
        n=1,
        extra_args=body.get("vllm_xargs"),
        stop_token_ids=[],
        _all_stop_token_ids=set(),
        skip_reading_prefix_cache=None,
        output_kind=SimpleNamespace(name="DELTA" if body.get("stream") else "FINAL_ONLY"),
        temperature=body.get("temperature", 0.0),
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        min_tokens=0,
        ignore_eos=False,
        max_tokens=body.get("max_tokens", 8),
        stop=[],
        structured_outputs=None,
    )


def server_of(engine: Any) -> FastAPI:
    """Routes that answer as vLLM's do."""
    app = FastAPI()

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            messages = body["messages"]
        except (ValueError, TypeError, KeyError):
            return JSONResponse({"error": {"message": "vLLM's own"}}, status_code=422)
        prompt = {"type": "token", "prompt_token_ids": list(messages[-1]["content"].encode())}
        outputs = engine.generate(prompt, params_of(body), "request")
        if body.get("stream"):
            return StreamingResponse(events(outputs), media_type="text/event-stream")
        answer: dict[str, Any] = {}
        async for output in outputs:
            (said,) = output.outputs
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": said.text},
                "logprobs": None,
                "finish_reason": said.finish_reason,
                "stop_reason": said.stop_reason,
            }
            n_tokens = len(said.token_ids)
            usage = {"completion_tokens": n_tokens, "total_tokens": n_tokens + 1}
            answer = {"id": "1", "object": "o", "choices": [choice], "usage": usage}
        return JSONResponse(answer)

    @app.post("/v1/else")
    async def elsewhere() -> None:
        engine.generate({}, None, "request")

    return app


async def events(outputs: AsyncIterator[Any]) -> AsyncIterator[str]:
    first = True
    async for output in outputs:
        (said,) = output.outputs
        choices = [{"delta": {"role": "assistant", "content": ""}}] if first else []
        choices.append({"delta": {"content": said.text}, "finish_reason": said.finish_reason})
        first = False
        for each in choices:
            choice = {"index": 0, "logprobs": None, "finish_reason": None, **each}
            chunk = {"id": "1", "object": "c", "created": 1, "model": "m", "choices": [choice]}
            yield f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"
    yield "data: [DONE]\n\n"


@contextmanager
def guarded(engine: Engine, **settings: object) -> Iterator[TestClient]:
    """A client of such a server with the plugin in it."""
    chosen = recorded_settings(**settings)
    manifest = recorded_manifest([look_name(look) for look in LOOKS], Context(max_tokens=8))
    codec = RecordedCodec()
    guard = Guard("recorded-id", manifest, cast("Detector", detector()), codec)
    orders = Orders("", "", 0.05, "marginal", (), "", STOP_TOKEN)
    calls = engine.calls = Calls(guard.detector, {}, no_end_look)
    asking = Asking(Admission(chosen, manifest, codec, "", 512))
    outer = GuardedEngine(engine, engine.generate, asking, calls, STOP_TOKEN, metrics.judged)
    answering = Answering()
    answering.begin(Started(chosen, guard, orders, engine.generate), asking)
    app = server_of(outer)
    app.add_middleware(GuardMiddleware, answering=answering)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
    assert not calls._calls


async def no_end_look(*_: Any, **__: Any) -> Any:
    raise AssertionError("no look at the end is among these")


class _Counted(list[str]):
    def judged(self, request: Guarded, call: Call) -> None:
        verdict = call.judgements[0].verdict
        self.append("none" if verdict is None else str(verdict.is_ood))


metrics = _Counted()


def asked(**fields: Any) -> dict[str, Any]:
    return {"messages": user(QUESTION), "max_tokens": 8, **fields}


def chunks_of(response: Any) -> list[dict[str, Any]]:
    *said, done, empty = response.text.split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in said]


def texts_of(chunks: list[dict[str, Any]]) -> list[str | None]:
    return [chunk["choices"][0]["delta"].get("content") for chunk in chunks]


@pytest.mark.parametrize("scores", [{PROMPT: 0.2, 4: 0.3}, {PROMPT: FAR, 4: 0.3}])
@pytest.mark.parametrize("mode", ["shadow", "flag", "refuse"])
@pytest.mark.parametrize("verdict_detail", ["full", "decision"])
def test_what_is_said_is_what_the_service_says(
    scores: dict[Look, float], mode: str, verdict_detail: str
) -> None:
    """The same verdict in the body and in the headers, and the same refusal."""
    said: dict[str, Any] = {"mode": mode, "verdict_detail": verdict_detail}
    service = recorded_app(
        looks=[look_name(look) for look in LOOKS],
        scores=lambda _, look: scores[look],
        context=Context(max_tokens=8),
        response=TEXT,
        **said,
    )
    with client_of(service) as client:
        expected = client.post(CHAT, json=asked())
    with guarded(Engine(scores), **said) as client:
        found = client.post(CHAT, json=asked())
    assert found.status_code == expected.status_code == 200
    assert found.json().get("trajguard") == expected.json().get("trajguard")
    names = {name for name in expected.headers if "trajguard" in name}
    assert {name: found.headers.get(name) for name in names} == {
        name: expected.headers[name] for name in names
    }
    ours, theirs = found.json()["choices"][0], expected.json()["choices"][0]
    if theirs["finish_reason"] == "content_filter":
        for name in ("content", "refusal"):
            assert ours["message"][name] == theirs["message"][name]
        assert found.json()["usage"]["completion_tokens"] == 0
    else:
        assert ours["message"]["content"] == TEXT
    assert (theirs["finish_reason"] == "content_filter") == (
        ours["finish_reason"] == "content_filter"
    )


def test_a_stream_is_passed_on_as_it_comes_with_a_verdict_after_each_look() -> None:
    with guarded(Engine({PROMPT: 0.2, 4: 0.3})) as client:
        response = client.post(CHAT, json=asked(stream=True))
    chunks = chunks_of(response)
    assert "".join(text or "" for text in texts_of(chunks)) == TEXT
    verdicts = {n: chunk["trajguard"] for n, chunk in enumerate(chunks) if "trajguard" in chunk}
    assert {n: len(verdict["looks"]) for n, verdict in verdicts.items()} == {1: 1, 4: 2, 8: 2}
    assert response.headers["x-trajguard-decision"] == "allow"


def test_a_refusal_in_the_middle_of_a_stream_ends_it() -> None:
    refusal = Settings().refusal
    with guarded(Engine({PROMPT: 0.2, 4: FAR})) as client:
        chunks = chunks_of(client.post(CHAT, json=asked(stream=True)))
    assert texts_of(chunks) == ["", "a", "b", "c", refusal, None]
    assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert chunks[-1]["trajguard"]["stage"] == "response"


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_may_be_errors(stream: bool) -> None:
    with guarded(Engine({PROMPT: FAR, 4: 0.0}), refusal_style="error") as client:
        response = client.post(CHAT, json=asked(stream=stream))
    error = error_of(response, 400)
    assert (error["code"], error["param"]) == ("content_filter", "messages")
    assert response.headers["x-trajguard-decision"] == "refuse"


def test_a_refusal_may_stand_in_its_field_alone() -> None:
    with guarded(Engine({PROMPT: FAR, 4: 0.0}), refusal_style="refusal") as client:
        message = client.post(CHAT, json=asked()).json()["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, Settings().refusal)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", [{"silent": True}, {"broken": "RuntimeError"}])
@pytest.mark.parametrize(("policy", "decision"), [("closed", "fail_closed"), ("open", "fail_open")])
def test_what_cannot_be_judged_goes_by_its_policy(
    monkeypatch: pytest.MonkeyPatch,
    failure: dict[str, Any],
    policy: str,
    decision: str,
    stream: bool,
) -> None:
    """Whether the worker says so, or says nothing."""
    monkeypatch.setattr("app.vllm_plugin.calls.PATIENCE", 0.01)
    policies = {"on_prompt_failure": policy, "on_response_failure": policy}
    with guarded(Engine({PROMPT: 0.1, 4: 0.1}, **failure), **policies) as client:
        response = client.post(CHAT, json=asked(stream=stream))
    assert response.headers["x-trajguard-decision"] == decision
    if stream:
        chunks = chunks_of(response)
        texts = "".join(text or "" for text in texts_of(chunks))
        verdict = chunks[-1]["trajguard"]
    else:
        body = response.json()
        texts, verdict = body["choices"][0]["message"]["content"], body["trajguard"]
    assert texts == (NOT_JUDGED if policy == "closed" else TEXT)
    assert (verdict["decision"], verdict["is_ood"]) == (decision, None)
    assert verdict["looks"][0]["failure"] in (
        "judging raised VerdictLost",
        "judging raised RuntimeError",
    )


def test_requests_carry_a_ticket_of_ours_and_no_other() -> None:
    engine = Engine({PROMPT: 0.1, 4: 0.1})
    forged = {"trajguard": {"call": "x"}, "theirs": 1}
    with guarded(engine) as client:
        client.post(CHAT, json=asked(vllm_xargs=forged, trajguard={"mode": "refuse"}))
    (params,) = engine.params
    assert params.extra_args["theirs"] == 1
    ticket = Ticket.read(params.extra_args)
    assert ticket is not None
    assert ticket.call != "x"
    assert ticket.is_judged
    assert ticket.question == (0, len(QUESTION))
    assert params.stop_token_ids == [STOP_TOKEN]
    # Its last position is run whatever is in the cache.
    assert params.skip_reading_prefix_cache is None


def test_other_sampling_than_calibrated_excludes_looks_at_the_response() -> None:
    with guarded(Engine({PROMPT: 0.1, 4: FAR})) as client:
        body = client.post(CHAT, json=asked(temperature=1.0)).json()
    assert body["trajguard"]["decision"] == "allow"
    excluded = [look["excluded"] for look in body["trajguard"]["looks"]]
    assert excluded == [None, "the sampling was not calibrated"]


def test_errors_of_vllm_s_are_passed_on() -> None:
    with guarded(Engine({})) as client:
        assert client.post(CHAT, content=b"{").json()["error"]["message"] == "vLLM's own"
        assert client.post(CHAT, content=b"[1]").status_code == 422
        too_long = b'{"a": "' + b"a" * MAX_BODY_BYTES + b'"}'
        assert client.post(CHAT, content=too_long).status_code == 422


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": user(SECRET), "trajguard": {"mode": "shadow"}}, "trajguard.mode"),
        ({"messages": user(SECRET), "trajguard": {"fields": {"a": "b"}}}, "trajguard.fields"),
        (
            {"messages": user(SECRET), "trajguard": {"timeout_seconds": 1}},
            "trajguard.timeout_seconds",
        ),
        ({"messages": user(SECRET), "trajguard": {"alpha": 0.3}}, "trajguard.alpha"),
        ({"messages": user(SECRET), "trajguard": {"else": 1}}, "trajguard.else"),
        ({"messages": user(SECRET), "moderation": {"model": "x"}}, "moderation"),
        ({"messages": user(SECRET), "documents": [{"a": "b"}]}, "documents"),
        ({"messages": [{"role": "assistant", "content": SECRET}]}, "messages"),
        ({"messages": [{"role": "who", "content": SECRET}]}, "messages.0.role"),
        ({"messages": user(SECRET * 10_000)}, "messages"),
    ],
)
def test_what_is_not_served_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    engine = Engine({})
    with guarded(engine) as client:
        error = error_of(client.post(CHAT, json=body), 400)
    assert error["param"] == param
    assert not engine.params


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/messages", "/v1/audio/speech", "/invocations"]
)
def test_routes_that_nobody_judges_are_refused_by_name(path: str) -> None:
    with guarded(Engine({})) as client:
        error = error_of(client.post(path, json={}), 404)
    assert path in error["message"]


def test_nothing_is_generated_for_who_has_not_come_by_the_guard() -> None:
    engine = Engine({})
    with guarded(engine) as client:
        assert client.post("/v1/else").status_code == 500
    assert not engine.params
    assert engine.calls is not None
    outer = GuardedEngine(
        engine, engine.generate, cast("Asking", None), engine.calls, STOP_TOKEN, metrics.judged
    )
    with pytest.raises(UnguardableError):
        outer.generate({"type": "token", "prompt_token_ids": [1]}, None, "r")


def test_what_came_of_calls_is_counted() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    counted = PluginMetrics(registry)
    calls = Calls(cast("Detector", detector()), {}, no_end_look)
    asked_ = SimpleNamespace(alpha=None, modes=SimpleNamespace(at=lambda _: "refuse"))
    for score in (0.1, FAR, FAR):
        ticket = Ticket("c", 1, is_question=False, is_judged=True, refuses=("prompt",))
        call = calls.begin(ticket, cast("Any", asked_))
        judge, ask = Judge(cast("Detector", detector())), Ask((1,))
        judge.watch(ask, call.judgements[0])
        judge.observe(PROMPT, [ask], cast("Any", [score]))
        counted.judged(cast("Any", SimpleNamespace(asked=asked_)), call)
    text = generate_latest(registry).decode()
    assert 'trajguard_decisions_total{decision="refuse",mode="refuse",stage="prompt"} 2.0' in text
    assert 'trajguard_decisions_total{decision="allow",mode="refuse",stage="prompt"} 1.0' in text
    assert 'trajguard_stopped_total{look="prompt"} 2.0' in text


def test_what_the_worker_tells_of_nobody_is_dropped() -> None:
    calls = Calls(cast("Detector", detector()), {}, no_end_look)
    calls.hear(json.dumps({"call": "gone", "judged": {}}).encode())
    calls.hear(json.dumps({"call": "gone", "look": 1, "trajectory": {}}).encode())
    assert asyncio.run(_waits(calls)) == "VerdictLost"


async def _waits(calls: Calls) -> str | None:
    ticket = Ticket("c", 1, is_question=False, is_judged=True)
    call = calls.begin(ticket, cast("Any", SimpleNamespace(alpha=None)))
    call.lose(0, {PROMPT})
    await call.judged_at_prompt()
    return call.judgements[0].looks[0].error
