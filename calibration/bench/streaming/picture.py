"""Power by the tokens seen, at each alpha."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from calibration.bench.streaming.patched import Compared
from calibration.bench.streaming.sequential import Measured
from calibration.bench.streaming.tables import POOLED

_COLOURS = ("#1f6f4a", "#c07a2c", "#6c7fa6", "#8a3f8f")
_MARKERS = ("o", "D", "s", "^")
_GREY = "#e3e8ee"
_STYLES = {"patches": "-", "running mean": "--"}


def picture(
    streamed: Mapping[str, Sequence[Measured | None]], changed: Sequence[Measured | None], at: int
) -> bytes:
    """Questions out of scope on the left; on the right, if measured, responses that change over."""
    with mpl.rc_context({"font.size": 9}):
        width = 10.5 if changed else 6.0
        figure, axes = plt.subplots(
            1, 2 if changed else 1, figsize=(width, 3.9), layout="constrained", squeeze=False
        )
        left, *right = axes[0]
        for guard, style in (("both", "-"), ("response", "--")):
            for number, found in enumerate(streamed[guard]):
                if found is not None:
                    what = f"alpha {found.alpha:g}, looks at {guard}"
                    _line(left, found.power_by[POOLED], number, style, what)
        _dressed(left, "question out of scope", "tokens of the response seen")
        for panel in right:
            for whose, style in (("out of scope", "-"), ("in scope", "--")):
                for number, found in enumerate(changed):
                    if found is not None:
                        since = [(tokens - at, share) for tokens, share in found.power_by[whose]]
                        what = f"alpha {found.alpha:g}, to a response {whose}"
                        _line(panel, since, number, style, what)
            _dressed(panel, f"response changes over after {at} tokens", "tokens since the change")
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150)
        plt.close(figure)
    return out.getvalue()


def patched_picture(compared: Sequence[Compared], place: int, at: int) -> bytes:
    """How many are flagged by when, of responses that change over, at one of the alphas: a panel
    each by whose the second half is.
    """
    first = next(measured for each in compared if (measured := each.changed[place]))
    names = list(first.power_by)
    sizes = list(dict.fromkeys(each.guard.size for each in compared))
    with mpl.rc_context({"font.size": 9}):
        figure, axes = plt.subplots(
            1, len(names), figsize=(5.25 * len(names), 3.9), layout="constrained", squeeze=False
        )
        for panel, name in zip(axes[0], names, strict=True):
            for each in compared:
                found, guard = each.changed[place], each.guard
                if found is not None and guard.name in _STYLES:
                    since = [(tokens - at, share) for tokens, share in found.power_by[name]]
                    what = f"{guard.name}, every {guard.size} tokens"
                    _line(panel, since, sizes.index(guard.size), _STYLES[guard.name], what)
            _dressed(
                panel, f"second half {name}", f"tokens since the change, alpha {first.alpha:g}"
            )
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150)
        plt.close(figure)
    return out.getvalue()


def _line(
    panel: Axes, points: Sequence[tuple[int, float]], number: int, style: str, name: str
) -> None:
    place = number % len(_COLOURS)
    panel.plot(
        [tokens for tokens, _ in points],
        [share for _, share in points],
        style,
        color=_COLOURS[place],
        marker=_MARKERS[place],
        markersize=4,
        linewidth=1.4,
        drawstyle="steps-post",
        label=name,
    )


def _dressed(panel: Axes, title: str, across: str) -> None:
    panel.set_title(title, loc="left", fontsize=10, fontweight="bold")
    panel.set_xlabel(across)
    panel.set_ylabel("flagged so far")
    panel.set_ylim(-0.02, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color=_GREY)
    panel.set_axisbelow(True)
    panel.legend(frameon=False, fontsize=7.5, handlelength=3.5)
