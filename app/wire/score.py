"""The wire models of `POST /v1/score`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.wire.explanation import VerdictExplanation
from app.wire.left_out import absent
from app.wire.messages import Fields, Messages
from app.wire.text import UnicodeText
from app.wire.verdict import DecisionVerdict, ScoreVerdict


class ScoreRequest(BaseModel):
    """A conversation to judge, with the response to it if there is one.

    The response is one from elsewhere: looks at it count where the artifact was calibrated on
    such (`trajguard collect --responses`), and are left out of the decision where not.
    """

    messages: Messages
    response: UnicodeText | None = Field(default=None, description="judge this response too")
    fields: Fields = Field(default_factory=dict)
    explain: bool = Field(default=False, description="say why too, as `?explain=true` does")


class ScoreResponse(BaseModel):
    model: str
    verdict: ScoreVerdict | DecisionVerdict
    explanation: VerdictExplanation | None = Field(
        default=None, description="if it was asked for", exclude_if=absent
    )
