"""What the neighbours of an artifact are called, as its manifest has them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NeighbourName(_Frozen):
    """A calibration question: the key that its words, numbers and signs hash to, its file, its
    kind if it has one, and its text if texts are kept.
    """

    id: str
    file: str
    kind: str | None = None
    text: str | None = None


class KindName(_Frozen):
    """A kind of out-of-scope questions, and how many of them its middle is of."""

    name: str
    n_questions: int = Field(ge=1)


class NeighbourNames(_Frozen):
    """In the order of the rows that the artifact has of them."""

    questions: tuple[NeighbourName, ...] = Field(min_length=1)
    kinds: tuple[KindName, ...] = ()
