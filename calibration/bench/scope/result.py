"""What was measured on the sets around a scope, for the JSON document, the tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from detector import conformal
from detector.errors import CalibrationError

Family = Literal["A", "P", "B", "C", "D", "MATH", "dialogues", "ood-turns", "fair"]
FAMILIES: tuple[Family, ...] = get_args(Family)

FAIR_INSIDE, FAIR_OUTSIDE = "fair_inside", "fair_outside"
PLAIN, REWRITTEN = "plain", "rewritten"
"""Two forms of each of the two fair sets, as in `fair_inside_plain`."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(_Document):
    """How many of a set's questions were refused."""

    refused: int
    n: int

    @property
    def rate(self) -> float:
        return self.refused / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's, 95 %."""
        return conformal.proportion_interval(self.refused, self.n)


class SetRecord(_Document):
    """A set as it was put: its questions' keys, and the kind of each where they have kinds."""

    name: str
    family: Family
    keys: tuple[str, ...]
    kinds: tuple[str, ...] | None = None


class Design(_Document):
    """One way to guard: each question's score (higher is more OOD), and what was refused.

    `scores` has, of each set, a number a question in the order of its keys; `refused` has, of each
    alpha (as text: "0.05") and set, a flag a question; `holdout` the false alarms on questions
    like those it was calibrated on.
    """

    name: str
    n_conformal: int
    scores: dict[str, tuple[float, ...]]
    refused: dict[str, dict[str, tuple[bool, ...]]]
    holdout: dict[str, Share]

    def share(self, alpha: str, name: str) -> Share:
        flags = self.refused[alpha][name]
        return Share(refused=sum(flags), n=len(flags))


class Measured(_Document):
    """The whole document."""

    sets: tuple[SetRecord, ...]
    designs: tuple[Design, ...]

    @property
    def alphas(self) -> list[str]:
        """Those that any design carries, from the largest."""
        found = {alpha for design in self.designs for alpha in design.refused}
        return sorted(found, key=float, reverse=True)

    def of_family(self, *families: Family) -> list[SetRecord]:
        return [record for record in self.sets if record.family in families]


def alpha_name(alpha: float) -> str:
    return f"{alpha:g}"


def read_measured(path: Path) -> Measured:
    """Raises CalibrationError when the file is not what `measure` writes."""
    try:
        return Measured.model_validate_json(path.read_bytes())
    except ValidationError:
        raise CalibrationError(
            f"{str(path)!r} is not a measurement of this version: make one with "
            "`python -m calibration.bench.scope measure`",
            param="measured",
        ) from None
