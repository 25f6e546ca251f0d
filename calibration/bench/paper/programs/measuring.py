"""What the families tell: OOD along each, and quality by labels that execution verified.

A family's first program is in distribution; the paper's protocol (`benchmark`) fits on the first
60 of its every hundred rows and measures all else. Intervals are at 95 %: exact ones of shares,
percentiles of 1,000 bootstrap draws of questions for AUROC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.bench.paper.benchmark import benchmark
from calibration.bench.paper.programs.answering import answered
from calibration.bench.paper.programs.families import FAMILIES, Family
from calibration.bench.paper.result import Benchmark
from calibration.bench.paper.scorers import GUARD, SURFACE, QuestionSet
from calibration.confounds import Scores
from calibration.questions import in_first
from calibration.reporting.scoring import auroc
from detector.conformal import proportion_interval
from detector.trajectory import END

DRAWS = 1000
FEWEST = 10
"""Right and wrong answers that a set needs to say anything of quality."""

QUALITY = (
    GUARD,
    "prompt: TV, Ledoit-Wolf, k=0",
    "response: Mahalanobis, mean over layers",
    "response: TV, Ledoit-Wolf, k=0",
    "output-embedding Mahalanobis",
    "CoE-R",
    "CoE-C",
    SURFACE,
)

Interval = tuple[float, float, float]
"""A value, and its interval's two ends."""


Parts = Sequence[tuple[Scores, Scores]]
"""Scores of what is to score lower and of what is to score higher, a pair a set."""


@dataclass(frozen=True)
class Labelled:
    """A set's scores by title, and which of its answers are right, where it was answered.

    Of the family's first set, the rows to test alone.
    """

    name: str
    n: int
    scores: dict[str, Scores]
    right: tuple[bool, ...] | None

    @property
    def tells(self) -> bool:
        """Whether there are enough answers of both kinds."""
        return self.right is not None and FEWEST <= sum(self.right) <= self.n - FEWEST


@dataclass(frozen=True)
class Rung:
    """A set against its family's first: the guard's AUROC and recall, and the surface's AUROC."""

    name: str
    n: int
    n_right: int | None
    guard: Interval | None
    response: Interval | None
    recall: Interval | None
    surface: float | None


@dataclass(frozen=True)
class Quality:
    """AUROC of each score for wrong answers, within sets of a family and with all pooled."""

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
    sets = [
        _labelled(result, QuestionSet.read(path, collected), None if place else first)
        for place, path in enumerate(paths)
    ]
    inside = sets[0]
    rungs = [_rung(result, inside, found) for found in sets]
    return rungs, _quality(family, sets)


def _labelled(result: Benchmark, questions: QuestionSet, first: int | None) -> Labelled:
    """`first`: the rows that were fitted to, which no score is of."""
    if first is not None:
        tested = [n for n in range(len(questions.rows)) if not in_first(n, first)]
        questions = questions.at(tested)
    right = None
    if END in questions.collection.record.parsed_looks:
        responses = [questions.collection.responses[n] for n in questions.indices]
        right = tuple(
            answered(response, row.answer)
            for response, row in zip(responses, questions.rows, strict=True)
        )
    scores = {
        title: np.array(by_set[questions.name])
        for title, by_set in result.scores.items()
        if title in QUALITY
    }
    return Labelled(questions.name, len(questions.rows), scores, right)


def _rung(result: Benchmark, inside: Labelled, found: Labelled) -> Rung:
    n, n_right = found.n, None if found.right is None else sum(found.right)
    if found is inside:
        return Rung(found.name, n, n_right, None, None, None, None)
    (guard,) = (row for row in result.rows if row.name == GUARD)
    recall = guard.cells[found.name].recall
    response = "response: TV, Ledoit-Wolf, k=0"
    return Rung(
        found.name,
        n,
        n_right,
        drawn([(inside.scores[GUARD], found.scores[GUARD])]),
        drawn([(inside.scores[response], found.scores[response])])
        if response in found.scores
        else None,
        (recall, *proportion_interval(recall * n, n)),
        auroc(inside.scores[SURFACE], found.scores[SURFACE]),
    )


def _quality(family: Family, sets: Sequence[Labelled]) -> Quality | None:
    """None where no set has enough answers of both kinds."""
    kept = [found for found in sets if found.tells]
    if not kept:
        return None
    titles = [title for title in QUALITY if title in kept[0].scores]
    return Quality(
        family.name,
        tuple(found.name for found in kept),
        sum(found.n for found in kept),
        sum(sum(found.right or ()) for found in kept),
        within={title: drawn(_parts(kept, title)) for title in titles},
        pooled={title: drawn(_parts(kept, title), pooled=True) for title in titles},
    )


def _parts(kept: Sequence[Labelled], title: str) -> Parts:
    right = [np.array(found.right) for found in kept]
    return [
        (found.scores[title][r], found.scores[title][~r])
        for found, r in zip(kept, right, strict=True)
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
