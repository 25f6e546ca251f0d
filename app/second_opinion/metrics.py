"""What Prometheus is told of second opinions."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.second_opinion.giving import Name
from detector.opinion import Opinion

OUTCOMES = ("freed", "held", "failed", "left")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)


class OpinionMetrics:
    """Of all that were asked for; those of a client that has left are of the outcome `left`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._opinions = Counter(
            "trajguard_second_opinions",
            "Second opinions asked for on flagged questions, by what came of them: freed let the "
            "question go on, held left it flagged, failed could not be had and left it flagged.",
            ["name", "outcome"],
            registry=registry,
        )
        self._tokens = Counter(
            "trajguard_second_opinion_tokens",
            "Tokens read and generated for second opinions.",
            ["name"],
            registry=registry,
        )
        self._seconds = Histogram(
            "trajguard_second_opinion_seconds",
            "Time that a flagged question waits for its second opinion.",
            ["name"],
            buckets=_SECONDS,
            registry=registry,
        )
        for name in get_args(Name):
            self._tokens.labels(name)
            self._seconds.labels(name)
            for outcome in OUTCOMES:
                self._opinions.labels(name, outcome)

    def told(self, name: str, opinion: Opinion | None) -> None:
        """Count one; None where nobody waited for it any more."""
        self._opinions.labels(name, "left" if opinion is None else opinion.outcome).inc()
        if opinion is not None:
            self._tokens.labels(name).inc(opinion.tokens)
            self._seconds.labels(name).observe(opinion.seconds)
