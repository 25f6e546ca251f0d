"""Why a question was judged as it was, as `/v1/score?explain=true` and the page tell it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.wire.left_out import absent


class LayerShare(BaseModel):
    """What one layer adds to the score of the look that decided."""

    layer: int
    share: float = Field(description="of the score; over 0 it speaks against the question")
    measured: float = Field(description="by this layer, in the score's own units")
    usual: float | None = Field(description="the median of questions in scope, null if not known")
    beyond: bool | None = Field(description="whether it lies above their central 95 %")


class NearQuestion(BaseModel):
    """A question that the threshold was calibrated on."""

    id: str = Field(description="the first 16 digits that its words and signs hash to")
    file: str = Field(description="the questions file that it is of")
    kind: str | None = Field(description="what its file says that it is")
    distance: float
    text: str | None = Field(
        default=None,
        description="where the artifact keeps it, and the key is privileged",
        exclude_if=absent,
    )


class NearKind(BaseModel):
    """The kind of out-of-scope questions whose middle is nearest."""

    name: str
    n_questions: int = Field(description="of which that is the middle")
    distance: float


class UsualDistance(BaseModel):
    """How far a calibration question is from the nearest other one."""

    median: float
    most: float = Field(description="97.5 % of them are no further")


class VerdictExplanation(BaseModel):
    """Of the look that decided, the one with the highest score that counts."""

    look: str | None
    name: str | None = Field(description="of the score, with its order if it has one")
    score: float | None
    layers: list[LayerShare] = Field(
        description="their shares add up to the score, the largest first; none where a score is "
        "no sum over layers"
    )
    neighbours: list[NearQuestion] = Field(description="the nearest first")
    usual_distance: UsualDistance | None
    out_of_scope_kind: NearKind | None = Field(
        description="null where the artifact was not set against a background"
    )
    note: str | None = Field(description="what is missing, and why")
