"""The real Prometheus against the real service: every dashboard and every rule has data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import dashboards
import httpx2
import pytest
import yaml
from torch import Tensor

from detector.artifact import Artifact
from detector.gaussian import LayerGaussians
from detector.manifest import Canaries, Canary
from tests.app.clients import CHAT, IN_SCOPE, OUT_OF_SCOPE, served, user
from tests.app.serving import make_app
from tests.monitoring.families import plain
from tests.monitoring.prometheus import RULES, Prometheus, checked, program, running, until
from tests.opined import LOW, with_opinions

QUERIES = [
    (name, panel["title"], target["expr"])
    for name, board in dashboards.dashboards().items()
    for panel in board["panels"]
    for target in panel["targets"]
]
RECORDED = [
    rule["record"]
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
]


class Users:
    """Those who ask the service at `url`: one of each kind."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, timeout=60)

    def close(self) -> None:
        self._client.close()

    def metrics(self, accept: str = "text/plain") -> str:
        answer = self._client.get("/metrics", headers={"accept": accept})
        assert answer.status_code == 200
        return answer.text

    def chat(self, content: str, **body: object) -> httpx2.Response:
        asked = {"messages": user(content), "max_tokens": 8, **body}
        return self._client.post(CHAT, json=asked)

    def decision(self, content: str, **body: object) -> str:
        answer = self.chat(content, **body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["trajguard"]["decision"])

    def stopped(self) -> None:
        """A stream that is refused at its look at 4 tokens: one of these is."""
        refusing = {"mode": "refuse"}
        for seed in range(200):
            body = {"stream": True, "temperature": 2.0, "seed": seed, "trajguard": refusing}
            text = self.chat(IN_SCOPE, **body).text
            if '"content_filter"' in text and '"stage":"response"' in text.replace(" ", ""):
                return
        raise AssertionError("no stream was stopped")

    def unjudged(self) -> None:
        answer = self._client.post(
            "/api/v1/text/contents",
            json={"contents": ["  "], "detector_params": {}},
            headers={"detector-id": "trajguard"},
        )
        assert answer.status_code == 200, answer.text

    def rejected(self) -> None:
        assert self.chat(IN_SCOPE, temperature=-1).status_code == 400
        assert self.chat(IN_SCOPE * 100).status_code == 400


class FailingScores:
    """Makes scoring fail while `on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = threading.Event()
        distances = LayerGaussians.distances

        def failing(gaussians: LayerGaussians, trajectories: Tensor) -> Tensor:
            if self.on.is_set():
                raise ArithmeticError
            return distances(gaussians, trajectories)

        monkeypatch.setattr(LayerGaussians, "distances", failing)


def with_canaries(artifact: Artifact) -> Artifact:
    """An artifact with canaries whose scores are not what is recorded."""
    canary = Canary(messages=({"role": "user", "content": IN_SCOPE},), scores=(0.0,))
    canaries = Canaries(
        questions=(canary,), tolerance=0.01, elsewhere=0.01, rate=0.25, numerics="", n_scored=1
    )
    manifest = artifact.manifest.model_copy(update={"canaries": canaries})
    return replace(artifact, manifest=manifest)


@pytest.fixture(scope="module")
def users(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    """Of a service that does all it can, before anybody has asked it."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("service")
    app = make_app(
        with_opinions(with_canaries(artifact), LOW),  # all of which leave the flag
        mode="flag",
        second_opinion="uncertainty",
        uncalibrated="include",
        audit=folder / "audit.sqlite",
        state=folder / "state.json",
        canaries=1.0,
    )
    with ExitStack() as stack:
        users = Users(stack.enter_context(served(app)))
        stack.callback(users.close)
        yield users


@pytest.fixture(scope="module")
def prometheus(users: Users, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has scraped a service before it was asked, and after."""
    target = str(users._client.base_url).removeprefix("http://").rstrip("/")
    with running(target, tmp_path_factory.mktemp("prometheus")) as prometheus:
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing = FailingScores(monkeypatch)
            assert users.decision(IN_SCOPE) == "allow"
            assert users.decision(OUT_OF_SCOPE) == "flag"
            assert users.decision(OUT_OF_SCOPE, trajguard={"mode": "refuse"}) == "refuse"
            failing.on.set()
            assert users.decision(IN_SCOPE) == "fail_open"
            assert users.decision(IN_SCOPE, trajguard={"mode": "refuse"}) == "fail_closed"
            failing.on.clear()
        users.stopped()
        users.unjudged()
        users.rejected()
        yield prometheus


def test_every_dashboard_has_data(prometheus: Prometheus) -> None:
    def without() -> list[tuple[str, str, str]]:
        return [
            (name, title, query)
            for name, title, query in QUERIES
            if not prometheus.numbers(plain(query))
        ]

    assert until(without, lambda seen: not seen) == []


def test_every_rule_is_evaluated_and_every_recording_has_data(prometheus: Prometheus) -> None:
    def without() -> list[str]:
        return [name for name in RECORDED if not prometheus.numbers(name)]

    assert until(without, lambda seen: not seen) == []
    groups = prometheus.get("rules")["groups"]
    rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
    written = [yaml.safe_load(path.read_text())["groups"] for path in RULES]
    assert len(rules) == sum(len(group["rules"]) for file in written for group in file)
    assert {
        rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"
    } == {}


def test_alerts_of_what_has_happened_fire_and_say_what(prometheus: Prometheus) -> None:
    """Those that need not last: what went on unjudged, and what was refused unjudged."""

    def firing() -> dict[str, dict[str, Any]]:
        alerts = prometheus.get("alerts")["alerts"]
        return {each["labels"]["alertname"]: each for each in alerts if each["state"] == "firing"}

    expected = {"TrajGuardFailedOpen", "TrajGuardFailedClosed"}
    seen = until(firing, lambda seen: expected <= set(seen))
    assert expected <= set(seen)
    for alert in seen.values():
        said = " ".join(alert["annotations"].values())
        assert "error" not in said.split("runbook")[0].lower().replace("errors", "")
        assert "<no value>" not in said
    open_at = seen["TrajGuardFailedOpen"]
    assert open_at["labels"]["stage"] == "response"
    assert open_at["labels"]["job"] == "trajguard"


def test_what_was_counted_is_what_was_asked(prometheus: Prometheus) -> None:
    """Data that is wrong would be data too."""

    expected = {
        'trajguard_decisions_total{decision="flag", stage="prompt"}': 1,
        'trajguard_scoring_failures_total{policy="open"}': 1,
        'trajguard_scoring_failures_total{policy="closed"}': 1,
        'trajguard_stopped_total{look="4"}': 1,
        'trajguard_not_judged_total{reason="empty"}': 1,
        'trajguard_rejections_total{reason="context_length_exceeded"}': 1,
        'trajguard_rejections_total{reason="invalid_request"}': 1,
    }

    def counted() -> dict[str, float]:
        return {each: sum(prometheus.numbers(each)) for each in expected}

    assert until(counted, lambda seen: seen == expected) == expected
    assert sum(prometheus.numbers("trajguard_canaries_total")) >= 1


def test_exemplars_lead_to_requests(prometheus: Prometheus) -> None:
    def found() -> list[dict[str, Any]]:
        query = "trajguard_time_to_first_token_seconds_bucket"
        series = prometheus.get("query_exemplars", query=query, start="0", end="9999999999")
        return [exemplar for each in series for exemplar in each["exemplars"]]

    seen = until(found, bool)
    assert seen
    assert all(set(each["labels"]) == {"request_id"} for each in seen)


def test_metrics_are_as_prometheus_wants_them(users: Users, prometheus: Prometheus) -> None:
    text = users.metrics()
    assert "trajguard_score_bucket" in text
    checked("promtool", "check", "metrics", given=text)
    assert "_created" not in text
    assert "_created" not in users.metrics("application/openmetrics-text; version=1.0.0")
