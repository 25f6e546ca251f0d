"""What the families tell: OOD along each, and quality by labels that execution verified.

A family's first program is in distribution, and scores are fitted as the paper's protocol does
(`benchmark`), on the first 60 of its every hundred rows. All sets have the same inputs: a row of
another set whose inputs were fitted to is nearer than it should be, and so OOD is measured on the
other rows alone, and quality among rows of one kind. Intervals are at 95 %: exact ones of shares,
percentiles of 1,000 bootstrap draws of questions for AUROC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.bench.paper.benchmark import Resplits, benchmark
from calibration.bench.paper.programs.answering import answered
from calibration.bench.paper.programs.families import FAMILIES, Family
from calibration.bench.paper.result import Benchmark
from calibration.bench.paper.scorers import GUARD, QuestionSet
from calibration.confounds import Scores, surface_counts
from calibration.questions import in_first
from calibration.reporting.scoring import auroc
from detector.conformal import proportion_interval
from detector.trajectory import END

DRAWS = 1000
FEWEST = 10
"""Right and wrong answers that a set needs to say anything of quality."""

RESPONSE = "response: TV, Ledoit-Wolf, k=0"
QUALITY = (
    GUARD,
    "prompt: TV, Ledoit-Wolf, k=0",
    "response: Mahalanobis, mean over layers",
    RESPONSE,
    "output-embedding Mahalanobis",
    "CoE-R",
    "CoE-C",
)

Interval = tuple[float, float, float]
"""A value, and its interval's two ends."""


Parts = Sequence[tuple[Scores, Scores]]
"""Scores of what is to score lower and of what is to score higher, a pair a set."""


@dataclass(frozen=True)
class Labelled:
    """Rows of a set whose inputs were fitted to, or were not: scores by title, and which answers
    are right, where there are answers.
    """

    name: str
    n: int
    texts: tuple[str, ...]
    scores: dict[str, Scores]
    right: tuple[bool, ...] | None

    @property
    def n_right(self) -> int | None:
        return None if self.right is None else sum(self.right)


@dataclass(frozen=True)
class Rung:
    """A set against its family's first: AUROC and recall of the guard, AUROC of a response's score,
    and of the surface count that tells most.
    """

    name: str
    n: int
    n_right: int | None
    guard: Interval | None
    response: Interval | None
    recall: Interval | None
    surface: float | None


@dataclass(frozen=True)
class Quality:
    """AUROC of each score for wrong answers: within sets of a family, all rows in two kinds; and
    with sets pooled, rows whose inputs were not fitted to.
    """

    family: str
    sets: tuple[str, ...]
    n: int
    n_right: int
    within: dict[str, Interval]
    pooled: dict[str, Interval]


def measure(
    family: Family, ladder: Path, collected: Path, *, first: int, alpha: float
) -> tuple[list[Rung], Quality | None]:
    """Raises CalibrationError as `benchmark` does."""
    names = [family.set_name(program) for program in family.programs]
    paths = [ladder / f"{name}.jsonl" for name in names]
    result = benchmark(paths[0], paths[1:], [], collected, first=first, alpha=alpha)
    read = [QuestionSet.read(path, collected) for path in paths]
    new = [_labelled(result, questions, first, fitted=False) for questions in read]
    known = [_labelled(result, questions, first, fitted=True) for questions in read[1:]]
    rungs = [_rung(new[0], found, alpha) for found in new]
    return rungs, _quality(family, new, known)


def _labelled(result: Benchmark, questions: QuestionSet, first: int, *, fitted: bool) -> Labelled:
    keep = [n for n in range(len(questions.rows)) if in_first(n, first) == fitted]
    # Of the ID file there are no scores of what was fitted to.
    places = np.arange(len(keep)) if questions.name == result.id_name else np.array(keep)
    rows = questions.at(keep)
    right = None
    if END in rows.collection.record.parsed_looks:
        responses = [rows.collection.responses[n] for n in rows.indices]
        right = tuple(
            answered(response, row.answer)
            for response, row in zip(responses, rows.rows, strict=True)
        )
    scores = {
        title: np.array(by_set[questions.name])[places]
        for title, by_set in result.scores.items()
        if title in QUALITY
    }
    return Labelled(questions.name, len(keep), tuple(rows.texts), scores, right)


def _rung(inside: Labelled, found: Labelled, alpha: float) -> Rung:
    if found is inside:
        return Rung(found.name, found.n, found.n_right, None, None, None, None)
    aurocs = {title: drawn([(inside.scores[title], found.scores[title])]) for title in found.scores}
    thresholds = Resplits.of(inside.scores[GUARD], alpha).thresholds
    recall = float((found.scores[GUARD][None] > thresholds[:, None]).mean())
    return Rung(
        found.name,
        found.n,
        found.n_right,
        aurocs[GUARD],
        aurocs.get(RESPONSE),
        (recall, *proportion_interval(recall * found.n, found.n)),
        surface_auroc(inside.texts, found.texts),
    )


def surface_auroc(inside: Sequence[str], outside: Sequence[str]) -> float:
    """The most that any one count of a question's surface tells, whichever way, by hindsight.

    No Gaussian of the counts: where they do not vary in distribution it has nothing to go by.
    """
    sides = [np.array([surface_counts(text) for text in texts]) for texts in (inside, outside)]
    found = [auroc(sides[0][:, n], sides[1][:, n]) for n in range(sides[0].shape[1])]
    return max(max(value, 1 - value) for value in found)


def _quality(family: Family, new: Sequence[Labelled], known: Sequence[Labelled]) -> Quality | None:
    """None where no set has enough answers of both kinds."""
    kept, names = [], []
    for found in new:
        parts = [found, *(other for other in known if other.name == found.name)]
        n, n_right = sum(part.n for part in parts), sum(part.n_right or 0 for part in parts)
        if FEWEST <= n_right <= n - FEWEST:
            kept += parts
            names.append(found.name)
    if not kept:
        return None
    titles = [title for title in QUALITY if title in kept[0].scores]
    unfitted = [part for part in new if part.name in names]
    return Quality(
        family.name,
        tuple(names),
        sum(part.n for part in kept),
        sum(part.n_right or 0 for part in kept),
        within={title: drawn(_parts(kept, title)) for title in titles},
        pooled={title: drawn(_parts(unfitted, title), pooled=True) for title in titles},
    )


def _parts(kept: Sequence[Labelled], title: str) -> Parts:
    """Of those parts that have answers of both kinds."""
    right = [np.array(found.right) for found in kept]
    return [
        (found.scores[title][r], found.scores[title][~r])
        for found, r in zip(kept, right, strict=True)
        if r.any() and not r.all()
    ]


def drawn(parts: Parts, *, pooled: bool = False) -> Interval:
    """AUROC, and percentiles over bootstrap draws of each set's questions.

    The chance that of two questions of the same set the one that is to score higher does, ties
    counting half; `pooled`: of two questions of any sets.
    """
    draw = np.random.default_rng(0)
    low, high = (np.concatenate(side) for side in zip(*parts, strict=True))
    wins = (high > low[:, None]) + 0.5 * (high == low[:, None])
    if not pooled:
        of_low, of_high = (
            np.repeat(np.arange(len(parts)), [len(part[side]) for part in parts]) for side in (0, 1)
        )
        wins = np.where(of_low[:, None] == of_high, wins, 0.0)
    n_pairs = len(low) * len(high) if pooled else sum(len(a) * len(b) for a, b in parts)
    times_low, times_high = (
        np.concatenate(
            [
                draw.multinomial(len(p[side]), np.full(len(p[side]), 1 / len(p[side])), DRAWS)
                for p in parts
            ],
            axis=1,
        )
        for side in (0, 1)
    )
    values = ((times_low @ wins) * times_high).sum(1) / n_pairs
    lowest, highest = np.quantile(values, [0.025, 0.975])
    return float(wins.sum() / n_pairs), float(lowest), float(highest)


def families(names: Sequence[str]) -> list[Family]:
    return [family for family in FAMILIES if not names or family.name in names]
