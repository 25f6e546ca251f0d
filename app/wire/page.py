"""The wire models of the page: what its scripts ask for, and no client of another's."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.policy import Decision, Mode
from app.wire.explanation import VerdictExplanation
from app.wire.messages import MAX_FIELD_LENGTH
from app.wire.text import UnicodeText
from app.wire.verdict import DecisionVerdict, ScoreVerdict


class Guarding(BaseModel):
    """What is served, and what of it whoever asks may see."""

    model: str
    scope: str
    artifact: str
    mode: Mode
    alpha: float | None = Field(description="null for who does not see verdicts whole")
    sees_detail: bool = Field(description="verdicts with their numbers")
    sees_traffic: bool = Field(description="`/page/live`")


class ExplainRequest(BaseModel):
    """A question that was asked in a chat request of its own, and that request's id."""

    request_id: UnicodeText = Field(max_length=MAX_FIELD_LENGTH)
    question: UnicodeText


class Band(BaseModel):
    """Where the distances of questions in scope lie at a look, by one score."""

    look: str
    name: str
    layers: list[int] = Field(description="the layer that each distance stands for")
    quantiles: list[list[float]] | None = Field(
        description="the distances at each of `levels`, or null where the artifact has none"
    )


class Explanation(BaseModel):
    """Why a question was judged as it was."""

    judged_text: str = Field(description="the question as it was written to be judged")
    text: str = Field(description="the way of writing, or typed")
    verdict: ScoreVerdict | DecisionVerdict
    levels: list[float]
    bands: list[Band] = Field(description="one a score at a look; none without the numbers")
    why: VerdictExplanation | None = Field(
        description="of what was flagged; null without the numbers, or of another artifact"
    )


class Row(BaseModel):
    """One question judged, of the list of the last ones."""

    at: float = Field(description="Unix time")
    request_id: str
    decision: Decision | None
    error: str | None
    mode: Mode
    stage: str | None
    score: float | None
    p_value: float | None


class Drift(BaseModel):
    """Evidence that what is asked, or the guard, is no longer what was calibrated."""

    of: str = Field(description="traffic or canaries")
    log_evidence: float = Field(description="natural logarithm; alarm at `log_alarm`")
    log_alarm: float
    is_alarm: bool
    n_questions: int


class News(BaseModel):
    """What has been judged since the last of these, or at first what is kept."""

    alpha: float
    n_judged: int = Field(description="since the service started")
    points: list[tuple[float, float, bool]] = Field(
        description="of each question judged: when, its p-value, and whether it was flagged"
    )
    rows: list[Row] = Field(description="the last ones of them, newest last")
    drift: list[Drift]
