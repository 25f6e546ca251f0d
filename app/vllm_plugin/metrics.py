"""What a guarded vLLM server counts beside vLLM's own, on the same `/metrics`.

The names are those of TrajGuard's own service, whose dashboards and rules know them.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from app.chat.generation import concern
from app.policy import DECISIONS, MODES, decide
from app.vllm_plugin.calls import Call
from app.vllm_plugin.guarded import Request
from detector.trajectory import look_name

_P_VALUES = (0.001, 0.005, 0.01, 0.025, *(round(0.05 * step, 2) for step in range(1, 21)))
_STAGES = ("prompt", "response", "none")
_POLICIES = {"fail_closed": "closed", "fail_open": "open"}


class PluginMetrics:
    """Labels are bounded: never a prompt, a user or a request id."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.decisions = Counter(
            "trajguard_decisions",
            "Questions judged, by the mode in force, the stage that decided, and the decision.",
            ["mode", "stage", "decision"],
            registry=registry,
        )
        self.failures = Counter(
            "trajguard_scoring_failures",
            "Requests that could not be judged, by the stage that failed, and what became of "
            "them: closed refused, open let go on.",
            ["policy", "stage"],
            registry=registry,
        )
        self.p_values = Histogram(
            "trajguard_p_value",
            "Conformal p-values; uniform as long as the traffic is in distribution.",
            buckets=_P_VALUES,
            registry=registry,
        )
        self.stopped = Counter(
            "trajguard_stopped",
            "Requests ended by a refusal, by the look that refused.",
            ["look"],
            registry=registry,
        )
        for mode in MODES:
            for stage in _STAGES:
                for decision in DECISIONS:
                    self.decisions.labels(mode, stage, decision)
        for policy in _POLICIES.values():
            for stage in ("prompt", "response"):
                self.failures.labels(policy, stage)

    def judged(self, request: Request, call: Call) -> None:
        """Count what came of a call: of its choices the one that is most OOD."""
        judgement = max(call.judgements, key=concern)
        verdict = judgement.verdict
        if verdict is None:
            return
        decision = decide(verdict, judgement.refuses, judgement.fails_closed)
        stage = verdict.stage or "none"
        self.decisions.labels(request.asked.modes.at(verdict.stage), stage, decision).inc()
        if decision in _POLICIES:
            self.failures.labels(_POLICIES[decision], stage).inc()
        if verdict.p_value is not None:
            self.p_values.observe(verdict.p_value)
        if (ended_at := judgement.ended_at) is not None:
            self.stopped.labels(look_name(ended_at)).inc()
