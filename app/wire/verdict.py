"""The verdict, as every contract of ours carries it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.policy import Decision, Mode


class ChatLook(BaseModel):
    """One score at one look at the generation. `raw` is in the score's own units."""

    look: str
    name: str = Field(description="of the score, with its order if it has one")
    score: float | None
    raw: float | None
    excluded: str | None = Field(description="why the look does not count, or null")
    failure: str | None = Field(description="why the look cannot be judged by, or null")


class ScoreLook(ChatLook):
    distances: list[float | None] = Field(description="per-layer distances behind `raw`")


class SecondOpinionOutcome(BaseModel):
    """What a second opinion made of a question that was flagged at its prompt."""

    name: str
    outcome: Literal["freed", "held", "failed"] = Field(
        description="freed: it goes on, as if it had not been flagged. held, or failed where no "
        "opinion could be had: it stays flagged"
    )


class SecondOpinionVerdict(SecondOpinionOutcome):
    score: float | None = Field(description="its own, higher is more OOD")
    p_value: float | None
    tokens: int = Field(description="read and generated for it")
    seconds: float
    failure: str | None = Field(description="why there is none, or null")
    reason: str | None = Field(
        default=None, description="why it was held, where its score does not say so"
    )


class DecisionVerdict(BaseModel):
    """What was decided and by what: all that is told where `verdict_detail` is `decision`."""

    is_ood: bool | None = Field(description="null when every look was excluded")
    stage: Literal["prompt", "response"] | None
    decision: Decision
    mode: Mode
    artifact: str
    text: str = Field(
        description="how the judged question is written: in canonical text, or as typed"
    )
    second_opinion: SecondOpinionOutcome | None = Field(
        default=None, description="of a question that was flagged at its prompt, if asked for"
    )


class ChatVerdict(BaseModel):
    """Higher scores are more OOD; 0 is the in-distribution median, 1 its 95 % point."""

    is_ood: bool | None = Field(
        description="null when every look was excluded, or one that counts cannot be judged by"
    )
    score: float | None
    p_value: float | None
    threshold: float | None
    alpha: float
    stage: Literal["prompt", "response"] | None
    group: str | None = Field(description="the group whose threshold was used, if grouped")
    decision: Decision
    mode: Mode
    artifact: str
    text: str = Field(
        description="how the judged question is written: in canonical text, or as typed"
    )
    looks: list[ChatLook]
    second_opinion: SecondOpinionVerdict | None = Field(
        default=None, description="of a question that was flagged at its prompt, if asked for"
    )


class ScoreVerdict(ChatVerdict):
    looks: list[ScoreLook]  # type: ignore[assignment]
