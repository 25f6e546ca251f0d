"""What a gateway is told of one text or conversation, whatever its contract.

Detectors report what they found, and the gateway decides; hooks that ask for an action are told to
block in mode refuse alone. In shadow mode both are told nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.asking.asked import Asked
from app.loading import Loaded
from app.policy import decision_of
from app.writing.guarded import NOT_JUDGED
from app.writing.risk import risk
from app.writing.verdict import score_verdict
from detector.judge import Judgement
from detector.trajectory import look_name


@dataclass(frozen=True)
class Finding:
    """`is_flagged`: a detection, at a score of 0.5 and more. `is_blocked`: it is not to go on, for
    the `reason`, which tells no score. `is_told`: there is a verdict to tell, `metadata`.
    """

    is_flagged: bool = False
    is_blocked: bool = False
    is_failure: bool = False
    is_told: bool = False
    score: float = 0.0
    reason: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    evidence: tuple[tuple[str, str, float], ...] = ()


NOTHING = Finding()
"""Of what was not judged, or in shadow mode."""


def finding_of(asked: Asked, loaded: Loaded, *, detail: bool) -> Finding:
    """Of a conversation that was read. Without `detail` its score is 0 or 1."""
    (judgement,) = asked.judgements
    verdict = judgement.final
    if verdict is None or asked.modes.at(verdict.stage) == "shadow":
        return NOTHING
    decision = decision_of(judgement)
    is_failure = decision == "fail_closed"
    is_flagged = decision in ("flag", "refuse", "fail_closed")
    score = risk(verdict) if detail and not is_failure else float(is_flagged)
    told = score_verdict(
        judgement, asked.modes, loaded.artifact_id, loaded.manifest.context.text, detail=detail
    )
    return Finding(
        is_flagged=is_flagged,
        is_blocked=decision in ("refuse", "fail_closed"),
        is_failure=is_failure,
        is_told=True,
        score=score,
        reason=NOT_JUDGED if is_failure else loaded.settings.refusal,
        metadata=told.model_dump(exclude={"looks"}),
        evidence=_evidence(judgement) if detail else (),
    )


def _evidence(judgement: Judgement) -> tuple[tuple[str, str, float], ...]:
    """The looks that count: their names, what was scored, and the scores."""
    return tuple(
        (look_name(look.look), look.name, look.score)
        for look in judgement.looks
        if look.excluded is None and not look.failure
    )
