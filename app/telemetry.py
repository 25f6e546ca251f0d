"""What OpenTelemetry is told: FastAPI's spans and metrics of requests, a span of each generation
and an event of each verdict. Never a prompt, a response or a part of one.

The names are those of the semantic conventions for generative AI, which are in development still:
no other file knows them. Verdicts are evaluations there, as long as guards are not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider, set_span_in_context
from opentelemetry.util.types import AttributeValue

from app.environment import PREFIX
from app.judging import Judged
from app.load_settings import BadSettingError
from app.middleware import PROBES
from app.settings import Settings

NAME = "trajguard"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ERROR = "error.type"

EVALUATED = "gen_ai.evaluation.result"
EVALUATION = "gen_ai.evaluation.name"
SCORE = "gen_ai.evaluation.score.value"
LABEL = "gen_ai.evaluation.score.label"
TRAJECTORY = "ood.trajectory"

REQUEST_ID = "trajguard.request_id"
MODE = "trajguard.mode"
STAGE = "trajguard.stage"
P_VALUE = "trajguard.p_value"
ARTIFACT = "trajguard.artifact"
SECOND_OPINION = "trajguard.second_opinion"

_CLOSING_SECONDS = 1.5

OFF: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""What FastAPI is told where the setting is off, whatever the environment says."""


@dataclass(frozen=True)
class Telemetry:
    """Where it is told. `close` sends what has not been sent, which may take some seconds."""

    tracers: TracerProvider
    meters: MeterProvider
    loggers: LoggerProvider
    close: Callable[[], None] = lambda: None

    @property
    def of_requests(self) -> TelemetryConfig:
        """What FastAPI is told. Its log records quote exceptions, which may quote prompts, and a
        span of every dependency would say nothing.
        """
        return {
            "tracer_provider": self.tracers,
            "meter_provider": self.meters,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": _is_probe,
        }

    def judged(self, event: Judged) -> None:
        """Tell what came of a request, under the span of the request if it has one."""
        answered = {
            REQUEST_ID: event.request_id,
            RESPONSE_ID: event.response_id,
            RESPONSE_MODEL: event.model,
        }
        if event.operation is None:
            self._tell_verdict(event, answered, None)
            return
        now = time.time_ns()
        asked_model = event.asked_model or event.model
        span = self.tracers.get_tracer(NAME, _VERSION).start_span(
            f"{event.operation} {asked_model}",
            kind=SpanKind.INTERNAL,
            start_time=now - round(event.seconds * 1e9),
            attributes=_known(
                {
                    OPERATION: event.operation,
                    PROVIDER: NAME,
                    REQUEST_MODEL: asked_model,
                    INPUT_TOKENS: event.n_prompt,
                    OUTPUT_TOKENS: event.n_response,
                    ERROR: event.error,
                    **answered,
                }
            ),
        )
        if event.error is not None:
            span.set_status(StatusCode.ERROR)
        self._tell_verdict(event, answered, set_span_in_context(span))
        span.end(now)

    def _tell_verdict(
        self, event: Judged, answered: dict[str, str | None], context: Context | None
    ) -> None:
        verdict, opinion = event.verdict, event.opinion
        if verdict is None or event.decision is None:
            return
        self.loggers.get_logger(NAME, _VERSION).emit(
            event_name=EVALUATED,
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            context=context,
            attributes=_known(
                {
                    EVALUATION: TRAJECTORY,
                    SCORE: verdict.score,
                    LABEL: event.decision,
                    MODE: event.mode,
                    STAGE: verdict.stage,
                    P_VALUE: verdict.p_value,
                    ARTIFACT: event.artifact,
                    SECOND_OPINION: None if opinion is None else opinion.outcome,
                    **answered,
                }
            ),
        )


_VERSION = version(NAME)


def open_telemetry(settings: Settings) -> Telemetry | None:
    """What sends to the collector that OpenTelemetry's own variables name, if it is to be told.

    Raises BadSettingError where what sends is not installed.
    """
    if not settings.telemetry:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk import _logs as logs
        from opentelemetry.sdk import metrics, resources, trace
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise BadSettingError(
            f"{PREFIX}TELEMETRY is true, and OpenTelemetry's SDK is not installed: install "
            "trajguard[telemetry], or leave it out",
            param=PREFIX + "TELEMETRY",
        ) from None
    named = resources.Resource.create({"service.name": NAME, "service.version": _VERSION})
    resource = named.merge(resources.OTELResourceDetector().detect())
    tracers = trace.TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    meters = metrics.MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    loggers = logs.LoggerProvider(resource=resource, shutdown_on_exit=False)
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))

    closes = (tracers.shutdown, meters.shutdown, loggers.shutdown)
    return Telemetry(tracers, meters, loggers, lambda: _within_seconds(closes))


def _within_seconds(closes: Sequence[Callable[[], object]]) -> None:
    """Call them all at once, and wait no longer than the service may take over its end: where no
    collector is there, each tries for a long time.
    """
    threads = [threading.Thread(target=_quietly, args=(each,), daemon=True) for each in closes]
    for thread in threads:
        thread.start()
    last = time.monotonic() + _CLOSING_SECONDS
    for thread in threads:
        thread.join(max(0.0, last - time.monotonic()))


def _quietly(close: Callable[[], object]) -> None:
    with suppress(Exception):  # what the SDK has to say of it is in the log
        close()


def _is_probe(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("path") in PROBES


def _known(values: dict[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {name: value for name, value in values.items() if value is not None}
