"""What OpenTelemetry is told, by exporters in memory and by one that sends to a loopback port."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from app import telemetry
from app.load_settings import BadSettingError
from app.main import create_app
from app.telemetry import Telemetry, open_telemetry
from tests.app.clients import CHAT, IN_SCOPE, SECRET, client_of, loaded_of, user
from tests.app.recorded import RESPONSE, recorded_load, recorded_settings
from tests.app.test_judging import GIVEN, SCORE


class Told:
    """An application, and what it has told."""

    def __init__(
        self, *, telemetry: bool = True, second_opinion: str = "none", **recorded: Any
    ) -> None:
        self._spans = InMemorySpanExporter()
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self._metrics = InMemoryMetricReader()
        tracers, loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        meters = MeterProvider([self._metrics])
        made = Telemetry(tracers, meters, loggers)
        self.app = create_app(
            recorded_settings(
                telemetry=telemetry, model_names="mine", second_opinion=second_opinion
            ),
            load=recorded_load(**recorded),
            open_telemetry=lambda settings: made if settings.telemetry else None,
        )

    def spans(self, *, server: bool) -> list[ReadableSpan]:
        return [
            span
            for span in self._spans.get_finished_spans()
            if (span.kind.name == "SERVER") is server
        ]

    def events(self) -> list[Any]:
        return [each.log_record for each in self._logs.get_finished_logs()]

    def everything(self) -> str:
        spans = [span.to_json() for span in self._spans.get_finished_spans()]
        logs = [each.to_json() for each in self._logs.get_finished_logs()]
        data = self._metrics.get_metrics_data()
        return "\n".join([*spans, *logs, data.to_json() if data is not None else ""])


def asked(told: Told, path: str, body: dict[str, Any]) -> Any:
    with client_of(told.app) as client:
        return client.post(path, json=body, headers={"x-request-id": "id-1"})


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_a_span_under_its_request_with_its_verdict_as_an_event(stream: bool) -> None:
    told = Told()
    body = {"messages": user(SECRET), "model": "mine", "stream": stream}
    answer = asked(told, CHAT, body)
    (request,) = told.spans(server=True)
    (chat,) = told.spans(server=False)
    assert request.name == f"POST {CHAT}"
    assert chat.name == "chat mine"
    assert chat.parent is not None
    assert chat.parent.span_id == request.context.span_id
    assert chat.start_time is not None
    assert request.start_time is not None
    assert request.start_time <= chat.start_time <= (chat.end_time or 0)
    response_id = json.loads(answer.text.split("\n")[0].removeprefix("data: "))["id"]
    assert dict(chat.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "trajguard",
        "gen_ai.request.model": "mine",
        "gen_ai.response.model": "recorded",
        "gen_ai.response.id": response_id,
        "gen_ai.usage.input_tokens": len(SECRET),
        "gen_ai.usage.output_tokens": len(RESPONSE) + 1,
        "trajguard.request_id": "id-1",
    }
    (event,) = told.events()
    assert event.event_name == "gen_ai.evaluation.result"
    assert event.span_id == chat.context.span_id
    assert dict(event.attributes) == {
        "gen_ai.evaluation.name": "ood.trajectory",
        "gen_ai.evaluation.score.value": 0.0,
        "gen_ai.evaluation.score.label": "allow",
        "gen_ai.response.id": response_id,
        "gen_ai.response.model": "recorded",
        "trajguard.request_id": "id-1",
        "trajguard.artifact": "recorded-id",
        "trajguard.mode": "refuse",
        "trajguard.p_value": 0.5,
        "trajguard.stage": "response",
    }
    said = told.everything()
    assert "http.server.request.duration" in said
    assert SECRET not in said
    assert RESPONSE not in said


def test_a_refusal_is_labelled_so() -> None:
    told = Told(scores=lambda ask, look: 5.0)
    asked(told, "/v1/completions", {"prompt": SECRET, "max_tokens": 5})
    (event,) = told.events()
    (span,) = told.spans(server=False)
    assert span.name == "text_completion recorded"
    assert event.attributes["gen_ai.evaluation.score.label"] == "refuse"
    assert event.attributes["gen_ai.evaluation.score.value"] == 5.0
    assert span.status.status_code is not StatusCode.ERROR


def test_a_second_opinion_is_told_by_its_outcome() -> None:
    """Here one that cannot be had: the recorded artifact has none."""
    told = Told(scores=lambda ask, look: 5.0, second_opinion="uncertainty")
    asked(told, CHAT, {"messages": user(SECRET)})
    (event,) = told.events()
    assert event.attributes["trajguard.second_opinion"] == "failed"
    assert event.attributes["gen_ai.evaluation.score.label"] == "refuse"
    assert SECRET not in told.everything()


def test_what_is_judged_alone_is_an_event_of_its_request() -> None:
    told = Told(context=GIVEN)
    asked(told, SCORE, {"messages": user(SECRET), "response": RESPONSE})
    (request,) = told.spans(server=True)
    assert told.spans(server=False) == []
    (event,) = told.events()
    assert event.span_id == request.context.span_id
    assert "gen_ai.response.id" not in event.attributes
    assert event.attributes["trajguard.request_id"] == "id-1"


@pytest.mark.parametrize("fault", ["body", "engine"])
def test_errors_are_told_by_their_codes_and_quote_nothing(fault: str) -> None:
    told = Told()

    def failing() -> Any:
        raise RuntimeError(SECRET)

    with client_of(told.app) as client:
        backend: Any = loaded_of(told.app).engine._backend
        backend.step = failing
        n: Any = SECRET if fault == "body" else 1
        client.post(CHAT, json={"messages": user(SECRET), "n": n})
    assert told.events() == []
    assert [span.attributes["error.type"] for span in told.spans(server=False)] == (  # type: ignore[index]
        [] if fault == "body" else ["engine_error"]
    )
    assert SECRET not in told.everything()


def test_probes_are_not_told() -> None:
    told = Told()
    with client_of(told.app) as client:
        for path in ("/health", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200
        client.get("/v1/models")
    assert [span.name for span in told.spans(server=True)] == ["GET /v1/models"]


def test_off_tells_nothing_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    told = Told(telemetry=False)
    assert asked(told, CHAT, {"messages": user(IN_SCOPE)}).status_code == 200
    assert told.spans(server=True) == told.spans(server=False) == told.events() == []
    assert not told.app._native_telemetry.enabled()


def test_a_stream_stays_a_stream() -> None:
    """Each event leaves before the next is made, as without telemetry."""
    assert parts_of(Told().app) == parts_of(Told(telemetry=False).app) > 3


def parts_of(app: FastAPI) -> int:
    """Into how many messages a stream of three tokens is sent."""
    body = json.dumps({"messages": user(IN_SCOPE), "max_tokens": 3, "stream": True}).encode()
    sent: list[Any] = []
    coming = [{"type": "http.request", "body": body, "more_body": False}]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": CHAT,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def receive() -> Any:
        return coming.pop() if coming else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await app.state.trajguard.loading.ended.wait()
            await app(scope, receive, send)

    asyncio.run(serve())
    return len([message for message in sent if message.get("body")])


def test_the_setting_without_the_sdk_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.sdk")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(BadSettingError, match=r"install trajguard\[telemetry\]") as caught:
        create_app(recorded_settings(telemetry=True))
    assert caught.value.param == "TRAJGUARD_TELEMETRY"
    create_app(recorded_settings())


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A collector on a loopback port: its address, and what it was sent."""
    received: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, content))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_all_of_it_is_sent_to_the_collector_of_the_environment_before_the_service_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with collector() as (address, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "guard-7")
        settings = recorded_settings(telemetry=True)
        app = create_app(settings, load=recorded_load(), open_telemetry=open_telemetry)
        with client_of(app) as client:
            client.post(CHAT, json={"messages": user(SECRET)})
    sent = dict(received)
    assert set(sent) == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    assert b"chat recorded" in sent["/v1/traces"]
    assert b"gen_ai.evaluation.result" in sent["/v1/logs"]
    assert b"http.server.request.duration" in sent["/v1/metrics"]
    for content in sent.values():
        assert b"guard-7" in content
        assert SECRET.encode() not in content


def test_a_collector_that_is_away_does_not_keep_the_service_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry, "_CLOSING_SECONDS", 0.05)
    over, closed = threading.Event(), threading.Event()

    def failing() -> None:
        raise OSError

    telemetry._within_seconds([over.wait, failing, closed.set])
    assert closed.is_set()
    over.set()
