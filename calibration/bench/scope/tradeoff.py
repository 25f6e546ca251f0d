"""What designs find of OOD questions at every threshold, by what that refuses in scope."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from calibration.bench.scope.result import Design, Family, Measured
from detector.errors import CalibrationError

MOST = 3
_COLOURS = ("#1f6f4a", "#b5542c", "#3b5b92")
_MARKERS = "os^Dv"
_GREY, _LINE = "#56657a", "#e3e8ee"
_TITLES: dict[Family, str] = {"MATH": "MATH", "B": "other kinds of question (B)"}
_LEFT = 0.001

Rates = NDArray[np.float64]


@dataclass(frozen=True)
class Traded:
    """A design as a curve: its label and the measurement it is of."""

    label: str
    measured: Measured
    design: Design


def chosen(found: Mapping[Path, Measured], names: Sequence[str]) -> list[Traded]:
    """The designs of these names, all if there are none; told by their file where two share one.

    Raises CalibrationError unless they are one to three.
    """
    picked = [
        (path, measured, design)
        for path, measured in found.items()
        for design in measured.designs
        if not names or design.name in names
    ]
    if not 1 <= len(picked) <= MOST:
        there = dict.fromkeys(d.name for measured in found.values() for d in measured.designs)
        raise CalibrationError(
            f"{len(picked)} designs are chosen and 1 to {MOST} are plotted: name some with "
            f"--design (there are: {', '.join(there)})",
            param="design",
        )
    taken = [design.name for _, _, design in picked]
    return [
        Traded(
            design.name if taken.count(design.name) == 1 else f"{design.name}, {path.stem}",
            measured,
            design,
        )
        for path, measured, design in picked
    ]


def mean_refused(sets: Sequence[Sequence[float]], thresholds: Rates) -> Rates:
    """The share of each set above each threshold, the mean over sets."""
    shares: list[Rates] = []
    for scores in sets:
        ordered = np.sort(np.asarray(scores))
        shares.append(1 - np.searchsorted(ordered, thresholds, side="right") / len(ordered))
    mean: Rates = np.stack(shares).mean(0)
    return mean


def curve(traded: Traded, family: Family) -> tuple[Rates, Rates]:
    """In-scope refused (P and A) and OOD refused (`family`) at every threshold that matters."""
    inside = _scores(traded, "P", "A")
    thresholds = np.unique(np.concatenate([np.asarray(scores) for scores in inside]))
    outside = _scores(traded, family)
    return mean_refused(inside, thresholds), mean_refused(outside, thresholds)


def operating_points(traded: Traded, family: Family) -> dict[str, tuple[float, float]]:
    """The same two means at each alpha, as it was refused there."""

    def mean(alpha: str, *families: Family) -> float:
        records = traded.measured.of_family(*families)
        return float(np.mean([traded.design.share(alpha, r.name).rate for r in records]))

    return {alpha: (mean(alpha, "P", "A"), mean(alpha, family)) for alpha in traded.design.refused}


def picture(designs: Sequence[Traded]) -> bytes:
    """One panel for MATH and one for B, as PNG; those that were measured."""
    families = [
        family for family in _TITLES if all(traded.measured.of_family(family) for traded in designs)
    ]
    if not families or not all(traded.measured.of_family("P", "A") for traded in designs):
        raise CalibrationError(
            "there are no sets to compare: measure P_* or A_*, and B_* or --math", param="measured"
        )
    with mpl.rc_context({"font.size": 9}):
        figure, panels = plt.subplots(
            1,
            len(families),
            figsize=(5.4 * len(families), 4.4),
            layout="constrained",
            sharey=True,
            squeeze=False,
        )
        alphas = sorted({alpha for t in designs for alpha in t.design.refused}, key=float)[::-1]
        markers = dict(zip(alphas, _MARKERS, strict=False))
        for panel, family in zip(panels[0], families, strict=True):
            for traded, colour in zip(designs, _COLOURS, strict=False):
                _draw(panel, traded, family, colour, markers)
            panel.set_title(f"refused of {_TITLES[family]}", loc="left", fontweight="bold")
            panel.set_xlabel("refused in scope, mean over P and A sets")
        handles = [
            Line2D([], [], color=colour, label=traded.label)
            for traded, colour in zip(designs, _COLOURS, strict=False)
        ]
        handles += [
            Line2D([], [], color=_GREY, marker=m, linestyle="", label=f"at alpha = {alpha}")
            for alpha, m in markers.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=160)
        plt.close(figure)
    return out.getvalue()


def _draw(
    panel: Axes, traded: Traded, family: Family, colour: str, markers: Mapping[str, str]
) -> None:
    x, y = curve(traded, family)
    # What refuses nothing in scope has no place on a logarithmic axis but at its end.
    panel.step(np.maximum(x, _LEFT), y, where="pre", color=colour)
    for alpha, (inside, outside) in operating_points(traded, family).items():
        panel.plot(
            max(inside, _LEFT), outside, markers[alpha], color=colour, markersize=5.5, clip_on=False
        )
    panel.set_xscale("log")
    panel.set(xlim=(_LEFT, 1), ylim=(0, 1.02))
    panel.xaxis.set_major_locator(FixedLocator([_LEFT, 0.01, 0.1, 1]))
    panel.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{'≤ ' if x <= _LEFT else ''}{100 * x:g}%")
    )
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color=_LINE)


def _scores(traded: Traded, *families: Family) -> list[Sequence[float]]:
    return [traded.design.scores[r.name] for r in traded.measured.of_family(*families)]
