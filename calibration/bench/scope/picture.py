"""The share refused of each set, by family, with the bars drawn in."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from calibration.bench.scope.result import Design, Family, Measured, SetRecord
from calibration.bench.scope.summary import Bars
from calibration.bench.scope.tables import TITLES

_INSIDE: tuple[Family, ...] = ("P", "A", "dialogues", "C")
_OUTSIDE: tuple[Family, ...] = ("MATH", "B", "D", "ood-turns")
_COLOURS = ("#1f6f4a", "#c07a2c", "#6c7fa6")
_MARKERS = ("o", "D", "s")
_BAR, _GREY, _LINE = "#b3261e", "#56657a", "#e3e8ee"
_ROW_INCHES = 0.2


def picture(measured: Measured, bars: Bars, alpha: str | None = None) -> bytes:
    """In scope on the left, out of scope on the right, at the largest alpha if none is given."""
    alpha = alpha or measured.alphas[0]
    designs = [design for design in measured.designs if alpha in design.refused]
    sides = [
        [family for family in families if measured.of_family(family)]
        for families in (_INSIDE, _OUTSIDE)
    ]
    rows = max(sum(len(measured.of_family(f)) + 1.6 for f in families) for families in sides)
    with mpl.rc_context({"font.size": 8.5}):
        figure, panels = plt.subplots(
            1, 2, figsize=(11.5, max(3.5, rows * _ROW_INCHES + 1.2)), layout="constrained"
        )
        titles = ("in scope: should be answered", "out of scope: should be refused")
        for panel, families, title in zip(panels, sides, titles, strict=True):
            _panel(panel, measured, designs, families, alpha, bars)
            panel.set_title(title, loc="left", fontsize=10, fontweight="bold")
            panel.set_xlabel(f"refused at alpha = {alpha}, with 95 % intervals")
            panel.set_ylim(rows, -0.6)
        figure.legend(
            handles=_legend(designs, alpha, bars),
            loc="outside lower center",
            ncols=6,
            frameon=False,
        )
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=160)
        plt.close(figure)
    return out.getvalue()


def _panel(
    panel: Axes,
    measured: Measured,
    designs: Sequence[Design],
    families: Sequence[Family],
    alpha: str,
    bars: Bars,
) -> None:
    at, ticks, top = 0.0, [], 0.0
    for family in families:
        records = measured.of_family(family)
        rates = {d.name: [d.share(alpha, r.name).rate for r in records] for d in designs}
        ticks.append((at, f"{TITLES[family].split(' by ')[0].rstrip(',')}", True))
        for number, record in enumerate(records):
            row = at + 1 + number
            ticks.append((row, _said(record), False))
            top = max(top, _row(panel, designs, record, alpha, row))
        for design, colour in zip(designs, _COLOURS, strict=False):
            if len(records) > 1:
                mean = float(np.mean(rates[design.name]))
                panel.plot(
                    [mean, mean],
                    [at + 0.5, at + len(records) + 0.5],
                    color=colour,
                    alpha=0.35,
                    linewidth=2.2,
                    zorder=1,
                )
        _bars(panel, family, bars.get(alpha, {}), (at + 0.4, at + len(records) + 0.6))
        at += len(records) + 1.6
    panel.set_yticks([row for row, _, _ in ticks], [said for _, said, _ in ticks])
    for label, (_, _, heading) in zip(panel.get_yticklabels(), ticks, strict=True):
        label.set_fontweight("bold" if heading else "normal")
        label.set_color("black" if heading else _GREY)
    panel.tick_params(axis="y", length=0)
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.set_xlim(-0.01, 1.01 if "B" in families or "MATH" in families else min(1.01, top * 1.1))
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.grid(axis="x", color=_LINE)
    panel.set_axisbelow(True)


def _row(
    panel: Axes, designs: Sequence[Design], record: SetRecord, alpha: str, row: float
) -> float:
    """One set; the intervals are those of the first design. Returns where it ends."""
    top = 0.0
    for number in reversed(range(len(designs))):
        share = designs[number].share(alpha, record.name)
        first = number == 0
        if first:
            low, high = share.interval
            panel.plot([low, high], [row, row], color=_COLOURS[0], linewidth=1.1)
            top = high
        panel.plot(
            share.rate,
            row,
            _MARKERS[number],
            color=_COLOURS[number],
            markerfacecolor=_COLOURS[number] if first else "white",
            markersize=5 if first else 4,
            zorder=3 if first else 2,
        )
        top = max(top, share.rate)
    return top


def _bars(
    panel: Axes, family: Family, bars: dict[str, float] | object, rows: tuple[float, float]
) -> None:
    """A line for the mean's bar and a dotted one for the worst set's, over a family's rows."""
    if not isinstance(bars, dict):
        return
    whole = {"dialogues": "dialogues", "MATH": "MATH", "ood-turns": "OOD last turns"}
    for name, style in (
        (f"{family} mean", "-"),
        (f"{family} worst", ":"),
        (whole.get(family, ""), "-"),
    ):
        if name in bars:
            panel.plot([bars[name]] * 2, rows, style, color=_BAR, linewidth=1.6, zorder=4)


def _said(record: SetRecord) -> str:
    _, _, rest = record.name.partition("_")
    return (rest if record.family in ("A", "B", "C", "D", "P", "MATH") else record.name).replace(
        "_", " "
    )


def _legend(designs: Sequence[Design], alpha: str, bars: Bars) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            linestyle="",
            label=design.name,
            markerfacecolor=colour if number == 0 else "white",
            markersize=5,
        )
        for number, (design, colour, marker) in enumerate(
            zip(designs, _COLOURS, _MARKERS, strict=False)
        )
    ]
    handles.append(Line2D([], [], color=_GREY, alpha=0.35, linewidth=2.2, label="mean of a family"))
    if bars.get(alpha):
        handles.append(Line2D([], [], color=_BAR, label="bar of the mean"))
        handles.append(Line2D([], [], color=_BAR, linestyle=":", label="bar of the worst set"))
    return handles
