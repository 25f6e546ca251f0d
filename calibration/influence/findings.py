"""What influence says: whether it follows procedures, and whether it is little where a score is
high.

Everything is about two figures. Correlations are Pearson's, of two queries' influences over all
documents (arXiv 2411.12580, finding 1). The mass of a query is what all documents together have
on it: as that paper has it (finding 2), per nat of the answer, and two that do not grow with the
gradient:

    per nat   sum_m |I(m, y)| / -log p(y | x)
    cosine    mean_m |I(m, y)| / sqrt(I(m, m) I(y, y))
    share     sum over the tenth of documents with the largest |I| / sum over all

Intervals are percentiles of bootstrap samples of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from detector.conformal import proportion_interval

Values = npt.NDArray[np.float64]
Mass = Literal["per nat", "cosine", "share"]

N_SAMPLES = 2000
_TAIL = 0.025
_TOP = 0.1


@dataclass(frozen=True)
class Estimate:
    """A figure of n queries, with the 95 % interval of it; None where it cannot be had."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        if self.value is None:
            return f"none (n = {self.n})"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}, n = {self.n})"


@dataclass(frozen=True)
class Procedures:
    """Mean correlations of pairs of queries: of one set, of one procedure with other numbers, and
    of two procedures; by how much the second is above the third; and in how many queries the one
    that correlates most with it is of the same procedure, with what chance would make of that.
    """

    same_set: Estimate
    other_numbers: Estimate
    other_procedure: Estimate
    difference: Estimate
    nearest: Estimate
    by_chance: float


def procedure_of(name: str) -> str:
    """Of a set's name: what comes before its last hyphen. `slope-small` and `slope-large` are one
    procedure with other numbers.
    """
    return name.rpartition("-")[0] or name


def correlations(pairs: Values) -> Values:
    """(queries, documents) -> (queries, queries)."""
    return np.asarray(np.corrcoef(pairs), dtype=np.float64)


def procedures(pairs: Values, sets: Sequence[str], seed: int = 0) -> Procedures:
    """Of queries in sets; two procedures at least, and two sets of one of them."""
    found = correlations(pairs)
    names = np.array(sets)
    families = np.array([procedure_of(name) for name in sets])
    same_set = names[:, None] == names[None]
    same = families[:, None] == families[None]

    def means(rows: npt.NDArray[np.int64]) -> Values:
        drawn = found[np.ix_(rows, rows)]
        # A query that is drawn twice is no pair with itself.
        apart = rows[:, None] != rows[None]
        of_one_set, of_one = same_set[np.ix_(rows, rows)], same[np.ix_(rows, rows)]
        chosen = (apart & of_one_set, of_one & ~of_one_set, ~of_one)
        values = [drawn[which].mean() if which.any() else np.nan for which in chosen]
        return np.array([*values, values[1] - values[2]])

    n = len(sets)
    point = means(np.arange(n))
    draw = np.random.default_rng(seed)
    by_set = [np.flatnonzero(names == name) for name in dict.fromkeys(sets)]
    samples = np.array(
        [
            means(np.concatenate([draw.choice(rows, len(rows)) for rows in by_set]))
            for _ in range(N_SAMPLES)
        ]
    )
    low, high = _percentiles(samples)
    same_set_mean, other_numbers, other_procedure, difference = (
        _estimate(*each, n=n) for each in zip(point.tolist(), low, high, strict=True)
    )
    others = found - 2 * np.eye(n) * np.abs(found).max()
    hits = int(same[np.arange(n), others.argmax(1)].sum())
    return Procedures(
        same_set=same_set_mean,
        other_numbers=other_numbers,
        other_procedure=other_procedure,
        difference=difference,
        nearest=Estimate(hits / n, *proportion_interval(hits, n), n),
        by_chance=float(((same.sum(1) - 1) / (n - 1)).mean()),
    )


def masses(pairs: Values, queries: Values, documents: Values, nats: Values) -> dict[Mass, Values]:
    """Of each query, by name of the mass."""
    size = np.abs(pairs)
    n_top = max(1, round(_TOP * pairs.shape[1]))
    return {
        "per nat": size.sum(1) / nats,
        "cosine": (size / np.sqrt(queries[:, None] * documents[None])).mean(1),
        "share": np.sort(size, axis=1)[:, -n_top:].sum(1) / size.sum(1),
    }


def spearman(one: Values, other: Values, seed: int = 0) -> Estimate:
    """Spearman's correlation of two figures of the same queries."""
    n = len(one)
    rows = np.random.default_rng(seed).integers(0, n, size=(N_SAMPLES, n))
    low, high = _percentiles(_spearman(one[rows], other[rows])[:, None])
    (value,) = _spearman(one[None], other[None]).tolist()
    return _estimate(value, low[0], high[0], n=n)


def _spearman(one: Values, other: Values) -> Values:
    """Of each row; NaN where either does not vary in it."""
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    first, second = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    lengths = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    found: Values = np.divide(
        (first * second).sum(1), lengths, out=np.full(len(one), np.nan), where=lengths > 0
    )
    return found


def _percentiles(samples: Values) -> tuple[list[float], list[float]]:
    """Of each column, those samples left out in which there is no such figure."""
    kept = [column[np.isfinite(column)] for column in samples.T]
    low = [float(np.quantile(column, _TAIL)) if len(column) else np.nan for column in kept]
    high = [float(np.quantile(column, 1 - _TAIL)) if len(column) else np.nan for column in kept]
    return low, high


def _estimate(value: float, low: float, high: float, *, n: int) -> Estimate:
    if not np.isfinite([value, low, high]).all():
        return Estimate(None, None, None, n)
    return Estimate(value, low, high, n)
