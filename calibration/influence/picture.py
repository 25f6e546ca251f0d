"""Correlations of influence between queries, set by set, as a heat map."""

from __future__ import annotations

import io
from itertools import groupby

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from calibration.influence.audit import Audit
from calibration.influence.findings import correlations

_INK = "#22303c"


def picture(audit: Audit, kind: str) -> bytes:
    """Of all queries by the MLPs' layers, in the order of their sets; `kind` is png or svg."""
    found = correlations(audit.pairs("mlp"))
    runs = [(name, len(list(run))) for name, run in groupby(each.of for each in audit.queries)]
    ends = np.cumsum([n for _, n in runs])
    names = [name.replace("-", " ") for name, _ in runs]
    middles = [end - n / 2 - 0.5 for end, (_, n) in zip(ends, runs, strict=True)]
    with mpl.rc_context({"font.size": 8.5, "text.color": _INK, "svg.hashsalt": "influence"}):
        figure, axes = plt.subplots(figsize=(6.6, 5.4), layout="constrained")
        drawn = axes.imshow(found, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        for end in ends[:-1]:
            axes.axhline(end - 0.5, color="white", linewidth=1.2)
            axes.axvline(end - 0.5, color="white", linewidth=1.2)
        axes.set_xticks(middles, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(middles, names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(f"correlation of influence over {len(audit.documents)} documents")
        out = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(out, format=kind, dpi=150, metadata=metadata)
        plt.close(figure)
    return out.getvalue()
