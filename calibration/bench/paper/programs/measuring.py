"""What the families tell: OOD along each, and quality by labels that execution verified.

A family's first program is in distribution; the paper's protocol (`benchmark`) fits on the first
60 of its every hundred rows and measures all else. Intervals are at 95 %: exact ones of shares,
percentiles of 1,000 bootstrap draws of questions for AUROC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Labelled:
    """A set's scores by title, and which of its answers are right; ID: rows to test alone."""

    name: str
    scores: dict[str, Scores]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Rung:
    """A set against its family's first: the guard's AUROC and recall, and the surface's AUROC."""

    name: str
    n: int
    n_right: int
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
    return Labelled(questions.name, scores, right)


def _rung(result: Benchmark, inside: Labelled, found: Labelled) -> Rung:
    n, n_right = len(found.right), sum(found.right)
    if found is inside:
        return Rung(found.name, n, n_right, None, None, None, None)
    (guard,) = (row for row in result.rows if row.name == GUARD)
    recall = guard.cells[found.name].recall
    response = "response: TV, Ledoit-Wolf, k=0"
    return Rung(
        found.name,
        n,
        n_right,
        _auroc(inside.scores[GUARD], found.scores[GUARD]),
        _auroc(inside.scores[response], found.scores[response])
        if response in found.scores
        else None,
        (recall, *proportion_interval(recall * n, n)),
        auroc(inside.scores[SURFACE], found.scores[SURFACE]),
    )


def _quality(family: Family, sets: Sequence[Labelled]) -> Quality | None:
    """None where no set has enough answers of both kinds."""
    kept = [s for s in sets if FEWEST <= sum(s.right) <= len(s.right) - FEWEST]
    if not kept:
        return None
    titles = [title for title in QUALITY if title in kept[0].scores]
    return Quality(
        family.name,
        tuple(found.name for found in kept),
        sum(len(found.right) for found in kept),
        sum(sum(found.right) for found in kept),
        within={title: _drawn(kept, title, _within) for title in titles},
        pooled={title: _drawn(kept, title, _pooled) for title in titles},
    )


def _auroc(inside: Scores, outside: Scores) -> Interval:
    draw = np.random.default_rng(0)
    drawn = [
        auroc(draw.choice(inside, len(inside)), draw.choice(outside, len(outside)))
        for _ in range(DRAWS)
    ]
    return (auroc(inside, outside), *_ends(drawn))


Parts = Sequence[tuple[Scores, Scores]]
"""Scores of right and of wrong answers, a pair a set."""


def _within(parts: Parts) -> float:
    """The chance that a wrong answer scores higher than a right one of the same set."""
    pairs = [len(right) * len(wrong) for right, wrong in parts]
    return float(np.average([auroc(*part) for part in parts], weights=pairs))


def _pooled(parts: Parts) -> float:
    rights, wrongs = zip(*parts, strict=True)
    return auroc(np.concatenate(rights), np.concatenate(wrongs))


def _drawn(kept: Sequence[Labelled], title: str, figure: Callable[[Parts], float]) -> Interval:
    draw = np.random.default_rng(0)
    parts = []
    for found in kept:
        right = np.array(found.right)
        parts.append((found.scores[title][right], found.scores[title][~right]))
    drawn = [
        figure([(draw.choice(a, len(a)), draw.choice(b, len(b))) for a, b in parts])
        for _ in range(DRAWS)
    ]
    return (figure(parts), *_ends(drawn))


def _ends(drawn: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def families(names: Sequence[str]) -> list[Family]:
    return [family for family in FAMILIES if not names or family.name in names]
