"""The verdict as it is written on the wire, and the score endpoint around it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.guard import Judgement
from app.policy import Decision, Mode
from detector.trajectory import look_name
from detector.verdict import LookScore


class ChatLook(BaseModel):
    """One score at one look at the generation. `raw` is in the score's own units."""

    look: str
    name: str = Field(description="of the score, with its order if it has one")
    score: float
    raw: float
    excluded: str | None = Field(description="why the look does not count, or null")


class ScoreLook(ChatLook):
    distances: list[float] = Field(description="per-layer distances behind `raw`")


class ChatVerdict(BaseModel):
    """Higher scores are more OOD; 0 is the in-distribution median, 1 its 95 % point."""

    is_ood: bool | None = Field(description="null when every look was excluded")
    score: float | None
    p_value: float | None
    threshold: float
    alpha: float
    stage: Literal["prompt", "response"] | None
    group: str | None = Field(description="the group whose threshold was used, if grouped")
    decision: Decision
    mode: Mode
    artifact: str
    looks: list[ChatLook]


class ScoreVerdict(ChatVerdict):
    looks: list[ScoreLook]  # type: ignore[assignment]


def _look(look: LookScore) -> dict[str, object]:
    return {
        "look": look_name(look.look),
        "name": look.name,
        "score": look.score,
        "raw": look.raw,
        "excluded": look.excluded,
        "distances": list(look.distances),
    }


def _fields(judgement: Judgement, artifact_id: str) -> dict[str, object]:
    verdict = judgement.verdict
    assert verdict is not None
    return {
        "is_ood": verdict.is_ood,
        "score": verdict.score,
        "p_value": verdict.p_value,
        "threshold": verdict.threshold,
        "alpha": verdict.alpha,
        "stage": verdict.stage,
        "group": verdict.group,
        "decision": judgement.decision,
        "mode": judgement.mode,
        "artifact": artifact_id,
        "looks": [_look(look) for look in verdict.looks],
    }


def chat_verdict(judgement: Judgement, artifact_id: str) -> ChatVerdict | None:
    """For a chat response: without distances, and none at all in shadow mode."""
    if judgement.mode == "shadow" or judgement.verdict is None:
        return None
    return ChatVerdict.model_validate(_fields(judgement, artifact_id))


def score_verdict(judgement: Judgement, artifact_id: str) -> ScoreVerdict:
    """For the score endpoint, in every mode."""
    return ScoreVerdict.model_validate(_fields(judgement, artifact_id))
