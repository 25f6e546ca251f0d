"""The benchmark as a table on the terminal and as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from calibration.bench.paper.result import Benchmark, ScoreRow
from calibration.bench.paper.scorers import GUARD

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733;
  max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e3e8ee;
  white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { background: #f4f6f9 }
tr.guard td { font-weight: 600; background: #eef7f0 }
figure { margin: 1rem 0 } img { max-width: 100% }
p.note { color: #56657a; max-width: 60rem } div.wide { overflow-x: auto }
"""

_HEADINGS = (
    "score",
    "near AUROC",
    "near FPR95",
    "near recall",
    "near matched",
    "far AUROC",
    "far FPR95",
    "far recall",
    "far matched",
    "false alarms",
    "length corr.",
)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _cells(row: ScoreRow, result: Benchmark) -> list[str]:
    fields = ("auroc", "fpr95", "recall", "matched")
    numbers = [row.mean(f, sets) for sets in (result.near, result.far) for f in fields]
    return [
        row.name,
        *map(_percent, numbers),
        _percent(row.false_alarms),
        "-" if row.length_correlation is None else f"{row.length_correlation:+.2f}",
    ]


def terminal_table(result: Benchmark) -> str:
    """Means over the near and the far OOD files, per cent."""
    lines = [list(_HEADINGS), *(_cells(row, result) for row in result.rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(_HEADINGS))]
    shown = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    peeking = result.peeking_false_alarms
    if peeking is not None:
        shown.append(f"\nfalse alarms with a peek at every look: {_percent(peeking)} %")
    return "\n".join(shown)


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]], guard: str = GUARD) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        f"<tr{' class=guard' if line[0] == guard else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
        + "</tr>"
        for line in lines
    )
    return (
        f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _picture(draw: Callable[[Figure], None], title: str, size: tuple[float, float]) -> str:
    figure = plt.figure(figsize=size, layout="constrained")
    draw(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    plt.close(figure)
    encoded = base64.b64encode(content.getvalue()).decode()
    return (
        f'<figure><img alt="{html.escape(title)}" src="data:image/png;base64,{encoded}"></figure>'
    )


def _roc(result: Benchmark) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        panels = [
            (sets, title)
            for sets, title in ((result.near, "near shift"), (result.far, "far shift"))
            if sets
        ]
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        names = [row.name for row in result.rows if row.name in _compared(result)]
        colours = plt.get_cmap("tab20")
        for axis, (sets, title) in zip(axes, panels, strict=True):
            for n, name in enumerate(names):
                scores = result.scores[name]
                inside = np.array(scores[result.id_name])
                outside = np.concatenate([scores[ood] for ood in sets])
                labels = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
                false, true, _ = roc_curve(labels, np.r_[inside, outside])
                axis.plot(false, true, label=name, linewidth=1.6, color=colours(n % 20))
            axis.plot([0, 1], [0, 1], color="#b8c2cf", linewidth=0.8, linestyle=":")
            axis.set(title=f"{title}, all files together", xlabel="false-positive rate")
        axes[0].set_ylabel("true-positive rate (OOD found)")
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside right upper",
            fontsize=8,
            frameon=False,
        )

    return draw


def _compared(result: Benchmark) -> set[str]:
    """The scores worth a curve: the guard, baselines, and the best TV order of each kind."""
    names = {row.name for row in result.rows if ", k=" not in row.name and "first" not in row.name}
    for kind in ("TV, Ledoit-Wolf", "TV as released"):
        for stage in ("prompt", "response"):
            family = [row for row in result.rows if row.name.startswith(f"{stage}: {kind}")]
            if family:
                names.add(max(family, key=lambda row: row.mean("auroc", result.near) or 0.0).name)
    return names


def _histograms(result: Benchmark) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        scores = result.scores[GUARD]
        axis = figure.subplots()
        low = min(map(min, scores.values()))
        high = max(np.quantile(values, 0.98) for values in scores.values())
        bins = np.geomspace(low, high, 60)
        colours = plt.get_cmap("tab10")
        for n, (name, values) in enumerate(scores.items()):
            inside = name == result.id_name
            axis.hist(
                values,
                bins=list(bins),
                weights=np.full(len(values), 1 / len(values)),
                histtype="stepfilled" if inside else "step",
                color="#9ec9a8" if inside else colours(n % 10),
                alpha=0.8 if inside else 1,
                linestyle="-" if name in (*result.near, result.id_name) else "--",
                label=name,
            )
        axis.set(
            xscale="log",
            yticks=[],
            xlabel="score of the guard, log scale",
            ylabel="share of questions",
        )
        axis.legend(fontsize=7.5, frameon=False)

    return draw


def _by_layer(result: Benchmark) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for name, values in result.layers.items():
            inside = name == result.id_name
            axis.plot(
                range(1, len(values) + 1),
                values,
                label=name,
                color="#2e7d46" if inside else None,
                linewidth=2.5 if inside else 1.2,
                linestyle="-" if name in (*result.near, result.id_name) else "--",
            )
        axis.set(yscale="log", xlabel="layer", ylabel="mean squared distance, ID = 1")
        axis.legend(fontsize=7.5, frameon=False, ncols=2)

    return draw


def html_page(result: Benchmark) -> str:
    """One page without references to anything outside it."""
    online = [
        [
            row.name,
            *(
                _percent(row.mean(field, sets))
                for sets in (result.near, result.far)
                for field in ("youden_recall", "youden_false_alarms")
            ),
        ]
        for row in result.rows
    ]
    per_set = [
        [row.name]
        + [
            f"{_percent(cell.drawn_auroc[0])} ± {_percent(cell.drawn_auroc[1])} / "
            f"{_percent(cell.drawn_fpr95[0])} ± {_percent(cell.drawn_fpr95[1])}"
            for cell in row.cells.values()
        ]
        for row in result.rows
    ]
    graded = sorted({name for row in result.rows for name in row.quality})
    quality = [
        [row.name]
        + [
            "{:+.2f} / {:+.2f}".format(*row.quality[name]) if name in row.quality else "-"
            for name in graded
        ]
        for row in result.rows
    ]
    accuracy = ", ".join(f"{name} {_percent(share)} %" for name, share in result.accuracy.items())
    sections = [
        f"<h1>Out-of-distribution detection, ID = {html.escape(result.id_name)}</h1>",
        f"<p>Model {html.escape(result.model_name)}; {result.n_fit} rows fit, "
        f"{result.n_test} test; near: {', '.join(result.near)}; far: {', '.join(result.far)}. "
        "Per cent; means over files. OOD is positive.</p>",
        _table(_HEADINGS, [_cells(row, result) for row in result.rows]),
        f"<p class=note>Recall and false alarms at alpha = {result.alpha:g}: thresholds from "
        f"random halves ({result.n_conformal} rows) of the ID test scores, rates on the other "
        "halves, mean of 1,000; 95 % point of the realised rate by the Beta law: "
        f"{_percent(result.bound)} %, as seen on so few rows {_percent(result.bound_seen)} %. "
        "Matched: AUROC over pairs equal in numbers and within 3 "
        "words. Length corr.: Spearman's, score with words of the question, on ID.</p>",
        "<h2>ROC</h2>",
        _picture(_roc(result), "ROC curves", (13, 4.6)),
        "<h2>Scores of the guard</h2>",
        _picture(_histograms(result), "Histograms of the guard's score", (11, 4)),
        "<h2>Distance by layer</h2>",
        _picture(_by_layer(result), "Mean distance by layer", (11, 4.5)),
        "<h2>By OOD file: AUROC / FPR95 over 20 balanced draws</h2>",
        _table(("score", *result.rows[0].cells), per_set),
        "<h2>Youden cut, chosen with the OOD data</h2>",
        "<p class=note>The paper's online table. Its threshold needs the OOD questions that it is "
        "then judged on, so it is here for comparison only.</p>",
        _table(("score", "near recall", "near FPR", "far recall", "far FPR"), online),
    ]
    if graded:
        sections += [
            "<h2>Quality: Kendall's / Spearman's correlation with a wrong answer</h2>",
            f"<p class=note>Answers right: {accuracy}.</p>",
            _table(("score", *graded), quality),
        ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>TrajGuard benchmark</title>"
        f"<style>{_STYLE}</style><body>{''.join(sections)}</body></html>"
    )
