"""How a model checks itself, and what an artifact records of whether that helps."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, Field, field_validator

from detector.backend import Sampling
from detector.engine_record import EngineRecord
from detector.errors import ArtifactMismatchError

CHECK = (
    "A guard gives the question a p-value of {p_value}: the lower it is, the less the question is "
    "like those that it knows. Is your answer correct? Begin with Correct or Incorrect, and say "
    "why in one sentence."
)
AGAIN = "Based on this review, answer the question again:\n\n{question}"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rechecking(_Frozen):
    """How it is asked: `check` after its answer, with the guard's {p_value}, and `again` after its
    critique, with the {question}. Answers are of `max_tokens` at most, critiques of `check_tokens`,
    all drawn by `sampling`.
    """

    check: str = CHECK
    again: str = AGAIN
    max_tokens: int = Field(default=256, ge=1)
    check_tokens: int = Field(default=64, ge=1)
    sampling: Sampling = Sampling()

    @field_validator("check")
    @classmethod
    def _tells(cls, check: str) -> str:
        if "{p_value}" not in check:
            raise ValueError("no {p_value} in it: write where the guard's p-value goes")
        return check

    @field_validator("again")
    @classmethod
    def _asks(cls, again: str) -> str:
        if "{question}" not in again:
            raise ValueError("no {question} in it: write where the question goes")
        return again

    @property
    def digest(self) -> str:
        """SHA-256 of both texts: what was asked, in one line of a report."""
        return hashlib.sha256(f"{self.check}\0{self.again}".encode()).hexdigest()


class RecheckCounts(_Frozen):
    """What came of `n` questions with answers, `n_flagged` of which were flagged at their prompt.

    `right_before` and `right_after` count right answers before the critique and after it, whether
    or not the second goes out. `n_more_ood` second answers are more OOD than the first. `n_sent` go
    out: of these `became_right` were wrong before, and `became_wrong` right.

    Of the critic: `wrong_told` of the wrong first answers it calls wrong, `right_told` of the
    right ones right, and of `n_untold` it says neither. `false_told` of the right ones it calls
    wrong.
    """

    n: int = Field(ge=1)
    n_flagged: int = Field(ge=0)
    right_before: int = Field(ge=0)
    right_after: int = Field(ge=0)
    n_more_ood: int = Field(ge=0)
    n_sent: int = Field(ge=0)
    became_right: int = Field(ge=0)
    became_wrong: int = Field(ge=0)
    wrong_told: int = Field(ge=0)
    right_told: int = Field(ge=0)
    false_told: int = Field(ge=0)
    n_untold: int = Field(ge=0)

    @property
    def wrong_before(self) -> int:
        return self.n - self.right_before


class RecheckRecord(_Frozen):
    """Whether the answers that a recheck sends may go out, and what that rests on. `why` says why
    not, and is empty where they may. `dtype` and `engine` made them; `sources` are the questions
    files, each with the SHA-256 of its bytes.
    """

    asking: Rechecking
    digest: str
    counts: RecheckCounts
    allowed: bool
    why: str = ""
    dtype: str
    engine: EngineRecord
    sources: dict[str, str]

    def require(self, dtype: str, engine: EngineRecord) -> None:
        """Raises ArtifactMismatchError where it is refused, and for another dtype or engine, with
        which the model answers otherwise.
        """
        if not self.allowed:
            raise ArtifactMismatchError(
                f"the artifact does not allow the second opinion 'recheck' ({self.why}): serve "
                "with another or none, or measure another model or wording with `trajguard "
                "recheck`",
                param="second_opinion",
            )
        if self.dtype != dtype or not self.engine.agrees(engine, dtype):
            raise ArtifactMismatchError(
                f"the artifact's recheck was measured in {self.dtype} by {self.engine} and is to "
                f"be served in {dtype} by {engine}: measure it here with `trajguard recheck`, or "
                "serve without it",
                param="second_opinion",
            )
