"""False alarms among questions in scope, in total and by what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.fit import grouping_of
from calibration.pooling import Pool
from calibration.questions import SOURCE, VARIATION
from calibration.reporting.scoring import Flags
from calibration.reporting.tables import aligned, percent
from calibration.vary import AS_TYPED
from detector import conformal
from detector.groups import LENGTH

HEAD = ["questions", "flagged", "%", "templates", "%", "95 % interval"]


@dataclass(frozen=True)
class FalseAlarms:
    """What is flagged of some questions.

    `rate` counts questions alike. `rate_by_unit` is the mean over units (templates, or questions
    where templates are known) of the share flagged, which is what alpha is a bound of; `low` and
    `high` are its 95 % interval, with units as the trials.
    """

    name: str
    n_questions: int
    n_flagged: int
    rate: float
    n_units: int
    rate_by_unit: float
    low: float
    high: float

    @classmethod
    def of(cls, name: str, flagged: Flags, units: Sequence[int]) -> FalseAlarms:
        labels = np.asarray(units)
        shares = [float(flagged[labels == unit].mean()) for unit in np.unique(labels)]
        low, high = conformal.proportion_interval(sum(shares), len(shares))
        return cls(
            name=name,
            n_questions=len(flagged),
            n_flagged=int(flagged.sum()),
            rate=float(flagged.mean()),
            n_units=len(shares),
            rate_by_unit=sum(shares) / len(shares),
            low=low,
            high=high,
        )

    def __str__(self) -> str:
        said = f"{self.n_flagged} of {self.n_questions} = {self.rate:.1%}, "
        if self.n_units < self.n_questions:
            said += f"by template {self.rate_by_unit:.1%} of {self.n_units}, "
        return f"{said}95 % interval {self.low:.1%} to {self.high:.1%}"

    def cells(self) -> list[str]:
        """As tables print them, rates in per cent."""
        return [
            self.name,
            str(self.n_questions),
            str(self.n_flagged),
            percent(self.rate),
            str(self.n_units),
            percent(self.rate_by_unit),
            f"{percent(self.low)} to {percent(self.high)}",
        ]


def sources_of(pool: Pool) -> list[list[str]]:
    """For each question the file that it is from, or was made of."""
    return [
        [fields.get(SOURCE) or file] for file, fields in zip(pool.files, pool.fields, strict=True)
    ]


def variations_of(pool: Pool) -> list[list[str]]:
    """For each question what was done to it, each on its own."""
    return [
        [AS_TYPED] if (done := fields.get(VARIATION, AS_TYPED)) == AS_TYPED else done.split()
        for fields in pool.fields
    ]


def lengths_of(pool: Pool) -> list[list[str]]:
    """For each question its third by number of words."""
    grouping = grouping_of(LENGTH, pool)
    assert grouping is not None
    return [[str(group)] for group in pool.groups(grouping)]


def tabulated(names: Sequence[Sequence[str]], flagged: Flags, pool: Pool) -> list[FalseAlarms]:
    """One row for each name that a question has, those most flagged first."""
    places: dict[str, list[int]] = {}
    for place, own in enumerate(names):
        for name in dict.fromkeys(own):
            places.setdefault(name, []).append(place)
    rows = [
        FalseAlarms.of(name, flagged[found], [pool.units[place] for place in found])
        for name, found in places.items()
    ]
    return sorted(rows, key=lambda row: (-row.rate_by_unit, row.name))


def written(tables: Mapping[str, Sequence[FalseAlarms]]) -> list[str]:
    """Each table's lines under its heading; one of a single row says nothing new."""
    lines: list[str] = []
    for heading, rows in tables.items():
        if len(rows) > 1:
            lines += ["", *aligned([[heading, *HEAD], *(row.cells() for row in rows)])]
    return lines
