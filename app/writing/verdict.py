"""The verdict as clients read it."""

from __future__ import annotations

import math

from app.policy import Decision, Mode, Modes, decision_of
from app.wire.verdict import ChatVerdict, DecisionVerdict, ScoreVerdict
from detector.canonical import TextVersion
from detector.judge import Judgement
from detector.opinion import Opinion
from detector.trajectory import look_name
from detector.verdict import LookScore, Verdict


def chat_verdict(
    judgement: Judgement, modes: Modes, artifact_id: str, text: TextVersion, *, detail: bool
) -> ChatVerdict | DecisionVerdict | None:
    """For a chat response: without distances, and none at all in shadow mode. Without
    `detail`, what was decided alone.
    """
    if set(modes) == {"shadow"} or judgement.shown is None:
        return None
    kind = ChatVerdict if detail else DecisionVerdict
    return kind.model_validate(_fields(judgement, modes, artifact_id, text))


def score_verdict(
    judgement: Judgement, modes: Modes, artifact_id: str, text: TextVersion, *, detail: bool
) -> ScoreVerdict | DecisionVerdict:
    """For the score endpoint, in every mode."""
    kind = ScoreVerdict if detail else DecisionVerdict
    return kind.model_validate(_fields(judgement, modes, artifact_id, text))


def told_verdict(
    verdict: Verdict,
    decision: Decision,
    mode: Mode,
    artifact_id: str,
    text: TextVersion,
    opinion: Opinion | None = None,
    *,
    detail: bool,
) -> ScoreVerdict | DecisionVerdict:
    """The same of a verdict that has led to a decision, with the second opinion if one was asked
    for.
    """
    kind = ScoreVerdict if detail else DecisionVerdict
    return kind.model_validate(_told(verdict, decision, mode, artifact_id, text, opinion))


def _fields(
    judgement: Judgement, modes: Modes, artifact_id: str, text: TextVersion
) -> dict[str, object]:
    verdict = judgement.shown
    assert verdict is not None
    mode = modes.at(verdict.stage)
    return _told(verdict, decision_of(judgement), mode, artifact_id, text, judgement.opinion)


def _told(
    verdict: Verdict,
    decision: Decision,
    mode: Mode,
    artifact_id: str,
    text: TextVersion,
    opinion: Opinion | None,
) -> dict[str, object]:
    return {
        "is_ood": verdict.is_ood,
        "score": verdict.score,
        "p_value": verdict.p_value,
        "threshold": _number(verdict.threshold),
        "alpha": verdict.alpha,
        "stage": verdict.stage,
        "group": verdict.group,
        "decision": decision,
        "mode": mode,
        "artifact": artifact_id,
        "text": text,
        "looks": [_look(look) for look in verdict.looks],
        "second_opinion": None if opinion is None else _opinion(opinion),
    }


def _opinion(opinion: Opinion) -> dict[str, object]:
    return {
        "name": opinion.name,
        "outcome": opinion.outcome,
        "score": None if opinion.score is None else _number(opinion.score),
        "p_value": opinion.p_value,
        "tokens": opinion.tokens,
        "seconds": opinion.seconds,
        "failure": opinion.failure,
        "reason": opinion.reason,
    }


def _look(look: LookScore) -> dict[str, object]:
    return {
        "look": look_name(look.look),
        "name": look.name,
        "score": _number(look.score),
        "raw": _number(look.raw),
        "excluded": look.excluded,
        "failure": look.failure,
        "distances": [_number(distance) for distance in look.distances],
    }


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
