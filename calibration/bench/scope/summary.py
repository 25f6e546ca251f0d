"""The summary of a measurement: a figure for each demand on a guard, beside its bar."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.bench.scope.result import (
    FAIR_INSIDE,
    FAIR_OUTSIDE,
    PLAIN,
    REWRITTEN,
    Design,
    Family,
    Measured,
    Share,
)
from calibration.reporting.scoring import auroc
from detector.errors import CalibrationError

FEW: tuple[str, ...] = (
    "holdout",
    "P mean",
    "P worst",
    "A mean",
    "A worst",
    "bare arithmetic",
    "object counting",
    "dialogues",
)
"""Figures of questions in scope: the share refused, the fewer the better."""

MANY: tuple[str, ...] = (
    "MATH",
    "fair AUROC",
    "AUROC as asked",
    "B mean",
    "B worst",
    "D mean",
    "D worst",
    "OOD last turns",
)
"""Figures of questions out of scope: the share refused or AUROC, the more the better."""

AUROC = ("fair AUROC", "AUROC as asked")

# Acceptance has other sets of these two kinds, named alike.
BORDERLINE = {"bare arithmetic": "bare_arithmetic", "object counting": "object_counting"}
WHOLE: dict[str, Family] = {
    "dialogues": "dialogues",
    "MATH": "MATH",
    "OOD last turns": "ood-turns",
}

Bars = Mapping[str, Mapping[str, float]]
"""Of each alpha, as text, the bar of each figure that has one."""


@dataclass(frozen=True)
class Figure:
    """A value in [0, 1], the counts behind it if it is one share, and the set that is the worst."""

    value: float
    share: Share | None = None
    worst: str | None = None


def summary(measured: Measured, design: Design, alpha: str) -> dict[str, Figure]:
    """Every figure of one design at an alpha that it carries, in the order of FEW and MANY.

    A figure whose sets were not measured is left out. Means are over sets, each counting once.
    """
    figures = {}
    if alpha in design.holdout:
        figures["holdout"] = _of(design.holdout[alpha])
    for family, worst in (("P", max), ("A", max), ("B", min), ("D", min)):
        names = [s.name for s in measured.sets if s.family == family]
        if names:
            rates = {name: design.share(alpha, name).rate for name in names}
            figures[f"{family} mean"] = Figure(float(np.mean(list(rates.values()))))
            name = worst(names, key=rates.__getitem__)
            figures[f"{family} worst"] = Figure(rates[name], design.share(alpha, name), name)
    for figure, part in BORDERLINE.items():
        names = [s.name for s in measured.of_family("C") if part in s.name]
        if names:
            figures[figure] = _of(_pooled(design, alpha, names))
    for figure, whole in WHOLE.items():
        names = [s.name for s in measured.of_family(whole)]
        if names:
            figures[figure] = _of(_pooled(design, alpha, names))
    for figure, form in zip(AUROC, (REWRITTEN, PLAIN), strict=True):
        inside, outside = (f"{side}_{form}" for side in (FAIR_INSIDE, FAIR_OUTSIDE))
        if inside in design.scores:
            scores = np.array(design.scores[inside]), np.array(design.scores[outside])
            figures[figure] = Figure(auroc(*scores))
    return {name: figures[name] for name in (*FEW, *MANY) if name in figures}


def meets(name: str, value: float, bar: float) -> bool:
    """Whether a figure is on the right side of its bar."""
    return value <= bar if name in FEW else value >= bar


def read_bars(path: Path | None) -> Bars:
    """A TOML file with a table an alpha, `["0.05"]`, and in it figures and bars: `"MATH" = 0.9`.

    Raises CalibrationError naming what is no such thing.
    """
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"bars file {str(path)!r} is not TOML ({error}): fix it", param="bars"
        ) from None
    for alpha, bars in found.items():
        wrong = [alpha] if not isinstance(bars, dict) else _wrong(bars)
        if wrong:
            raise CalibrationError(
                f"bars file {str(path)!r}: {wrong[0]!r} is no bar: write a table an alpha with "
                f"numbers in [0, 1] for {', '.join((*FEW, *MANY))}",
                param="bars",
            )
    return found


def _wrong(bars: Mapping[str, object]) -> Sequence[str]:
    return [
        name
        for name, bar in bars.items()
        if name not in (*FEW, *MANY) or not isinstance(bar, int | float) or not 0 <= bar <= 1
    ]


def _of(share: Share) -> Figure:
    return Figure(share.rate, share)


def _pooled(design: Design, alpha: str, names: Sequence[str]) -> Share:
    shares = [design.share(alpha, name) for name in names]
    return Share(refused=sum(s.refused for s in shares), n=sum(s.n for s in shares))
