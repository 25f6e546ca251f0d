"""Every score of the benchmark, fitted on one set of questions and taken on any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from calibration.bench.paper.answers import is_correct
from calibration.bench.paper.baselines import Baselines
from calibration.bench.paper.likelihood import entropy, max_softmax, perplexity
from calibration.collection import Collection, CollectionFolder
from calibration.confounds import Scores, surface_scores
from calibration.fit import FitOptions
from calibration.questions import Question, read_rows
from detector.errors import CalibrationError
from detector.fit_split import FitSplit
from detector.fitted_look import Part
from detector.planes import Planes
from detector.scores import SCORES, FittedScore
from detector.trajectory import END, PROMPT, PROMPT_MEAN, Look

GUARD = "bare prompt look (prompt:mahalanobis)"
SURFACE = "surface counts, no model"


@dataclass(frozen=True)
class QuestionSet:
    """One questions file with what was collected of it, a row a question, copies too."""

    name: str
    rows: tuple[Question, ...]
    collection: Collection
    baselines: Baselines | None

    @classmethod
    def read(cls, path: Path, collected: Path) -> QuestionSet:
        """Raises CalibrationError when the file is not collected, or has changed since."""
        rows, digest = read_rows(path)
        folder = collected / path.stem
        collection = CollectionFolder(folder).read()
        if collection.record.source.sha256 != digest:
            raise CalibrationError(
                f"{str(path)!r} is not the file that {str(folder)!r} was collected from: collect "
                "it again into another --out",
                param="collected",
            )
        baselines = Baselines.read(folder, collection.keys)
        return cls(path.stem, tuple(rows), collection, baselines)

    def at(self, keep: Sequence[int]) -> QuestionSet:
        return replace(self, rows=tuple(self.rows[n] for n in keep))

    @property
    def indices(self) -> list[int]:
        places = {key: n for n, key in enumerate(self.collection.keys)}
        return [places[row.key] for row in self.rows]

    @property
    def texts(self) -> list[str]:
        return [row.text for row in self.rows]

    def planes(self, look: Look) -> Planes:
        return self.collection.at(look).select(torch.tensor(self.indices))

    @property
    def correct(self) -> list[bool | None]:
        responses = [self.collection.responses[n] for n in self.indices]
        return [
            is_correct(response, row.answer)
            for response, row in zip(responses, self.rows, strict=True)
        ]


Scorer = Callable[[QuestionSet], Scores]


def _trajectory_scorer(part: Part, gaussians: FitSplit) -> Scorer:
    fitted = SCORES[part.score].fit(gaussians, part.order)
    return lambda questions: scored(fitted, questions.planes(part.look)).numpy()


def scored(fitted: FittedScore, planes: Planes) -> Tensor:
    return torch.cat([fitted.score(batch) for batch in planes.batches()]).double()


def _baseline_scorer(score: Callable[[Baselines], Tensor]) -> Scorer:
    def scorer(questions: QuestionSet) -> Scores:
        assert questions.baselines is not None
        scores: Scores = score(questions.baselines)[questions.indices].numpy()
        return scores

    return scorer


def scorers(fit: QuestionSet) -> dict[str, Scorer]:
    """Every score that the collection supports, fitted where it needs fitting."""
    looks = {
        look: FitSplit(fit.planes(look), FitOptions().rank)
        for look in fit.collection.record.parsed_looks
    }
    made: dict[str, Scorer] = {}

    def add(title: str, look: Look, score: str, order: int = 0) -> None:
        if look in looks:
            made[title] = _trajectory_scorer(Part(look, score, order), looks[look])

    add(GUARD, PROMPT, "mahalanobis")
    for stage, look in (("prompt", PROMPT), ("response", END)):
        if look not in looks:
            continue
        if look == END:
            add("response: Mahalanobis, mean over layers", END, "mahalanobis")
        add(f"{stage}: Mahalanobis of first differences", look, "mahalanobis", 1)
        for order in SCORES["tv-paper"].orders:
            add(f"{stage}: TV, Ledoit-Wolf, k={order}", look, "tv-paper", order)
        released = SCORES["tv-reference"]
        for order in released.orders:
            enough = fit.collection.record.n_layers >= released.fewest_layers(order)
            if enough and bool((looks[look].diagonal.variance[1:] > 0).all()):
                add(f"{stage}: TV as released, k={order}", look, "tv-reference", order)
    add("input-embedding Mahalanobis", PROMPT_MEAN, "mahalanobis-last")
    add("output-embedding Mahalanobis", END, "mahalanobis-last")
    add("CoE-R", END, "coe-r")
    add("CoE-C", END, "coe-c")
    if fit.baselines is not None:
        made["perplexity"] = _baseline_scorer(lambda found: perplexity(found.likelihood))
        made["max softmax probability"] = _baseline_scorer(
            lambda found: max_softmax(found.likelihood)
        )
        made["entropy"] = _baseline_scorer(lambda found: entropy(found.likelihood))
        made["MC dropout"] = _baseline_scorer(lambda found: found.deviation)
    made[SURFACE] = lambda questions: surface_scores(fit.texts, questions.texts)
    return made
