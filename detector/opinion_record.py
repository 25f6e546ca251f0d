"""What second opinions are asked by, and what they are judged by, as an artifact records it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from detector.engine_record import EngineRecord
from detector.errors import ArtifactMismatchError

OpinionScore = Literal["uncertainty", "persuasion"]
OPINION_SCORES: tuple[OpinionScore, ...] = ("uncertainty", "persuasion")
Score = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(_Frozen):
    """A question in scope and its answer, which is the context that persuades."""

    question: str
    answer: str


class Asking(_Frozen):
    """How a question is asked for answers: `n_answers` drawn at `temperature`, of `max_tokens`
    each, to the question with the `instruction` behind it; and as often again with the worked
    `example` before it. `nli` names the model that clusters answers without a number, where one
    does.
    """

    n_answers: int = Field(default=8, ge=2)
    temperature: float = Field(default=0.5, gt=0, le=2)
    max_tokens: int = Field(default=16, ge=1)
    instruction: str = "Answer with the number alone."
    example: Example
    nli: str = ""


class OpinionScores(_Frozen):
    """Of the same questions, each kind's scores sorted."""

    uncertainty: tuple[Score, ...]
    persuasion: tuple[Score, ...]

    def __len__(self) -> int:
        return len(self.uncertainty)

    def of(self, name: OpinionScore) -> tuple[float, ...]:
        return self.uncertainty if name == "uncertainty" else self.persuasion


class OpinionRecord(_Frozen):
    """What a second opinion's p-value rests on.

    `calibration` are the scores of questions in scope that stage one flagged at `alpha`
    ("flagged"), which are the questions that second opinions are asked of: among new ones of these
    the p-value is at most beta with a probability of at most beta. Those of all questions in scope
    ("all") stand in where too few are flagged, and promise nothing of those that are. `holdout` are
    flagged ones of `n_holdout` others. `dtype` and `engine` made all of them; `sources` are the
    files, each with the SHA-256 of its bytes.
    """

    asking: Asking
    population: Literal["flagged", "all"]
    alpha: float = Field(gt=0, lt=1)
    calibration: OpinionScores
    holdout: OpinionScores
    n_holdout: int = Field(ge=0)
    dtype: str
    engine: EngineRecord
    sources: dict[str, str]

    def require(self, dtype: str, engine: EngineRecord, nli: str) -> None:
        """Raises ArtifactMismatchError for another dtype, engine or NLI model, with each of which
        other answers come or count.
        """
        if self.dtype != dtype or not self.engine.agrees(engine, dtype):
            raise ArtifactMismatchError(
                f"the artifact's second opinions were calibrated in {self.dtype} by {self.engine} "
                f"and are to be given in {dtype} by {engine}: calibrate them here with `trajguard "
                "second-opinion`, or serve without one",
                param="second_opinion",
            )
        if self.asking.nli != nli:
            raise ArtifactMismatchError(
                f"the artifact's second opinions were calibrated with the NLI model "
                f"{self.asking.nli or 'none'!r}, and {nli or 'none'!r} is given: name the same one",
                param="second_opinion_nli",
            )
