"""The share refused of each set, by family, with the bars drawn in."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from calibration.bench.scope.result import Design, Family, Measured, SetRecord, Share
from calibration.bench.scope.summary import BORDERLINE, WHOLE, Bars
from calibration.bench.scope.tables import TITLES

_INSIDE: tuple[Family, ...] = ("P", "A", "dialogues", "C")
_OUTSIDE: tuple[Family, ...] = ("MATH", "B", "D", "ood-turns")
_COLOURS = ("#1f6f4a", "#c07a2c", "#6c7fa6")
_MARKERS = ("o", "D", "s")
_BAR, _GREY, _LINE = "#b3261e", "#56657a", "#e3e8ee"
_ROW_INCHES = 0.2
_GAP = 1.6


@dataclass(frozen=True)
class _Block:
    """A family's rows: what each is called, its share by design, and the bars to draw over it.

    `means` are by design, or none. A bar is a value, a line style, and the first and the last row
    that it is of.
    """

    title: str
    names: tuple[str, ...]
    shares: tuple[tuple[Share, ...], ...]
    means: tuple[float, ...]
    bars: tuple[tuple[float, str, int, int], ...]


def picture(measured: Measured, bars: Bars, alpha: str | None = None) -> bytes:
    """In scope on the left, out of scope on the right, at the largest alpha if none is given."""
    alpha = alpha or measured.alphas[0]
    designs = [design for design in measured.designs if alpha in design.refused]
    at = bars.get(alpha, {})
    inside = [*_holdout(designs, alpha, at), *_blocks(measured, designs, _INSIDE, alpha, at)]
    outside = list(_blocks(measured, designs, _OUTSIDE, alpha, at))
    n_rows = max(sum(len(b.names) + _GAP for b in blocks) for blocks in (inside, outside))
    with mpl.rc_context({"font.size": 8.5}):
        figure, panels = plt.subplots(
            1, 2, figsize=(11.5, max(3.5, n_rows * _ROW_INCHES + 1.2)), layout="constrained"
        )
        _panel(panels[0], inside, whole_axis=False)
        _panel(panels[1], outside, whole_axis=True)
        for panel, title in zip(
            panels, ("in scope: should be answered", "out of scope: should be refused"), strict=True
        ):
            panel.set_title(title, loc="left", fontsize=10, fontweight="bold")
            panel.set_xlabel(f"refused at alpha = {alpha}, with 95 % intervals")
            panel.set_ylim(n_rows - 0.4, -0.8)
        handles = _legend(designs, bool(at))
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=160)
        plt.close(figure)
    return out.getvalue()


def _holdout(designs: Sequence[Design], alpha: str, bars: Mapping[str, float]) -> Iterator[_Block]:
    if designs and all(alpha in design.holdout for design in designs):
        yield _Block(
            "In scope, as calibrated",
            ("holdout",),
            (tuple(design.holdout[alpha] for design in designs),),
            means=(),
            bars=tuple((bars[name], "-", 0, 0) for name in ("holdout",) if name in bars),
        )


def _blocks(
    measured: Measured,
    designs: Sequence[Design],
    families: Sequence[Family],
    alpha: str,
    bars: Mapping[str, float],
) -> Iterator[_Block]:
    for family in families:
        records = measured.of_family(family)
        if records:
            yield _Block(
                TITLES[family].partition(" by ")[0].rstrip(","),
                tuple(map(_said, records)),
                tuple(tuple(d.share(alpha, r.name) for d in designs) for r in records),
                means=tuple(_mean(design, family, records, alpha) for design in designs)
                # Borderline sets have nothing in common to take a mean of.
                if len(records) > 1 and family != "C"
                else (),
                bars=tuple(_bars(family, records, bars)),
            )


def _mean(design: Design, family: Family, records: Sequence[SetRecord], alpha: str) -> float:
    """Over sets as the summary has it: those of MATH are parts of one."""
    shares = [design.share(alpha, record.name) for record in records]
    if family in WHOLE.values():
        return sum(share.refused for share in shares) / sum(share.n for share in shares)
    return float(np.mean([share.rate for share in shares]))


def _bars(
    family: Family, records: Sequence[SetRecord], bars: Mapping[str, float]
) -> Iterator[tuple[float, str, int, int]]:
    whole = [name for name, of in WHOLE.items() if of == family]
    last = len(records) - 1
    for name, style in (
        (f"{family} mean", "-"),
        (f"{family} worst", ":"),
        *((w, "-") for w in whole),
    ):
        if name in bars:
            yield bars[name], style, 0, last
    for name, part in BORDERLINE.items():
        for row, record in enumerate(records):
            if family == "C" and part in record.name and name in bars:
                yield bars[name], "-", row, row


def _panel(panel: Axes, blocks: Sequence[_Block], *, whole_axis: bool) -> None:
    ticks: list[tuple[float, str, bool]] = []
    at = top = 0.0
    for block in blocks:
        first = at + 1
        ticks.append((at, block.title, True))
        for row, (name, shares) in enumerate(zip(block.names, block.shares, strict=True), start=1):
            ticks.append((at + row, name, False))
            top = max(top, _points(panel, shares, at + row))
        for number, mean in enumerate(block.means):
            span = [first - 0.5, first + len(block.names) - 0.5]
            panel.plot(
                [mean, mean], span, color=_COLOURS[number], alpha=0.35, linewidth=2.2, zorder=1
            )
        for bar, style, begin, last in block.bars:
            rows = [first + begin - 0.5, first + last + 0.5]
            panel.plot([bar, bar], rows, style, color=_BAR, linewidth=1.4, zorder=2)
            top = max(top, bar)
        at += len(block.names) + _GAP
    panel.set_yticks([place for place, _, _ in ticks], [said for _, said, _ in ticks])
    for label, (_, _, heading) in zip(panel.get_yticklabels(), ticks, strict=True):
        label.set_fontweight("bold" if heading else "normal")
        label.set_color("black" if heading else _GREY)
    panel.tick_params(axis="y", length=0)
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    end = 1.0 if whole_axis else min(1.0, max(0.1, 1.1 * top))
    panel.set_xlim(-0.015 * end, 1.015 * end)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.grid(axis="x", color=_LINE)
    panel.set_axisbelow(True)


def _points(panel: Axes, shares: Sequence[Share], row: float) -> float:
    """One set's shares, with the interval of the first design's. Returns where they end."""
    low, high = shares[0].interval
    panel.plot([low, high], [row, row], color=_COLOURS[0], linewidth=1.1)
    for number, share in enumerate(shares):
        panel.plot(
            share.rate,
            row,
            _MARKERS[number],
            color=_COLOURS[number],
            markerfacecolor=_COLOURS[number] if number == 0 else "white",
            markersize=5 if number == 0 else 4,
            # What is measured here lies above what it is compared with.
            zorder=3 - number / 10,
            clip_on=False,
        )
    return max(high, *(share.rate for share in shares))


def _said(record: SetRecord) -> str:
    """A set's name without its family, which stands above it."""
    lettered = record.family in ("A", "B", "C", "D", "P", "MATH")
    name = record.name.partition("_")[2] if lettered else record.name
    return name.replace("_", " ")


def _legend(designs: Sequence[Design], has_bars: bool) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=_COLOURS[number],
            marker=_MARKERS[number],
            linestyle="",
            label=design.name,
            markerfacecolor=_COLOURS[number] if number == 0 else "white",
            markersize=5,
        )
        for number, design in enumerate(designs)
    ]
    handles.append(Line2D([], [], color=_GREY, alpha=0.35, linewidth=2.2, label="mean of a family"))
    if has_bars:
        handles.append(Line2D([], [], color=_BAR, label="bar"))
        handles.append(Line2D([], [], color=_BAR, linestyle=":", label="bar of the worst set"))
    return handles
