"""What a report says, as values, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from calibration.reporting import explained, false_alarms, recall
from calibration.reporting.explained import Explained
from calibration.reporting.false_alarms import HEAD, FalseAlarms
from calibration.reporting.power import Power
from calibration.reporting.recall import OodRow
from calibration.reporting.tables import aligned, percent
from detector import conformal


@dataclass(frozen=True)
class GroupRow:
    """One group of questions: its threshold, and false alarms among its holdout questions."""

    name: str
    n_conformal: int
    threshold: float
    n_holdout: int
    n_false_alarms: int


@dataclass(frozen=True)
class AlphaRow:
    """False alarms on holdout and the recall of each OOD file at another alpha, or None of both
    where calibration cannot carry it.
    """

    alpha: float
    false_alarms: FalseAlarms | None
    recall: dict[str, float | None]


@dataclass(frozen=True)
class NewTemplates:
    """The rate on questions of templates left out in turn. `weighted` is whether the threshold
    was the one that holds for new templates.
    """

    rate: float
    low: float
    high: float
    n_templates: int
    weighted: bool

    def __str__(self) -> str:
        return (
            f"{self.rate:.1%}, 95 % interval {self.low:.1%} to {self.high:.1%} "
            f"({self.n_templates} templates left out in turn, with the threshold for "
            f"{'new' if self.weighted else 'known'} templates)"
        )


@dataclass(frozen=True)
class Report:
    """Realised false alarms on the holdout split, and rows for each OOD file.

    `tables` maps headings to rows of the holdout, `unseen_variations` holds those of ways to type
    that were never calibrated. `bound` is of the realised rate given this calibration, where
    every unit is one question. `length_correlations` maps each score to its rank correlation with
    the number of words.
    """

    alpha: float
    threshold: float
    n_conformal: int
    n_units: int
    bound: float | None
    holdout: FalseAlarms
    tables: dict[str, tuple[FalseAlarms, ...]]
    groups: tuple[GroupRow, ...]
    length_correlations: dict[str, float | None]
    ood: tuple[OodRow, ...]
    alphas: tuple[AlphaRow, ...]
    unseen_variations: tuple[FalseAlarms, ...] = ()
    new_templates: NewTemplates | None = None
    power: Power | None = None
    explained: tuple[Explained, ...] = ()

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        return "\n".join(
            [
                *self._summary(),
                *false_alarms.written(self.tables),
                *self._never_calibrated(),
                *recall.written(self.ood),
                *self._alphas(),
                *explained.written(self.explained),
                *([] if self.power is None else ["", str(self.power)]),
            ]
        )

    def _summary(self) -> Iterator[str]:
        units = f" of {self.n_units} templates" if self.n_units < self.n_conformal else ""
        bounded = (
            ""
            if self.bound is None
            else f" (realised rate at most {self.bound:.1%} with 95 % confidence)"
        )
        yield (
            f"alpha {self.alpha:g}, threshold {self.threshold:.4f}, "
            f"{self.n_conformal} conformal questions{units}{bounded}"
        )
        found = self.holdout
        yield f"false alarms on holdout: {found}"
        for group in self.groups:
            low, high = conformal.proportion_interval(group.n_false_alarms, group.n_holdout)
            yield (
                f"  {group.name} ({group.n_conformal} conformal, threshold "
                f"{group.threshold:.4f}): {group.n_false_alarms} of {group.n_holdout}, "
                f"95 % interval {low:.1%} to {high:.1%}"
            )
        if self.new_templates is not None:
            yield f"false alarms on questions of new templates: {self.new_templates}"
        for score, correlation in self.length_correlations.items():
            shown = "none" if correlation is None else f"{correlation:+.2f}"
            yield f"rank correlation of {score} with the number of words: {shown}"

    def _never_calibrated(self) -> list[str]:
        if not self.unseen_variations:
            return []
        rows = [row.cells() for row in self.unseen_variations]
        return ["", *aligned([["never calibrated", *HEAD], *rows])]

    def _alphas(self) -> list[str]:
        names = [row.name for row in self.ood if row.recall is not None]
        head = ["alpha", "false alarms %", "by template %", "95 % interval"]
        table = [[*head, *(f"recall of {name} %" for name in names)]]
        for row in self.alphas:
            if (found := row.false_alarms) is None:
                cells = ["too few templates", "", ""]
            else:
                interval = f"{percent(found.low)} to {percent(found.high)}"
                cells = [percent(found.rate), percent(found.rate_by_unit), interval]
            table.append([f"{row.alpha:g}", *cells, *(percent(row.recall[name]) for name in names)])
        return ["", *aligned(table)]
