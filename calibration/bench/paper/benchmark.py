"""Benchmark: every score on in-distribution and OOD files, by the paper's protocol and beyond.

The paper's protocol (arXiv 2405.14039): the first rows of every hundred of the ID file fit,
the rest test; AUROC and FPR95 with OOD positive. Beyond it: realised false alarms and recall
at alpha by conformal re-splits of the ID test scores, the surface baseline, matched pairs,
and correlation with length. No OOD question takes part in any choice, save in the paper's
Youden cut, which is named as what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import betabinom, hypergeom, kendalltau, spearmanr
from sklearn.metrics import roc_curve
from torch import Tensor

from calibration.bench.paper.answers import is_correct
from calibration.collection import Collection, CollectionFolder
from calibration.confounds import Scores, length_correlation, matched_auroc, surface_scores
from calibration.fit import FitOptions
from calibration.questions import Question, in_first, read_rows
from calibration.report import auroc, fpr95
from detector import conformal
from detector.confidence import entropy, max_softmax, perplexity
from detector.detector import MIN_TRAJECTORIES, Part, fit_look
from detector.errors import CalibrationError, TooFewQuestionsError
from detector.gaussian import GaussianFits
from detector.planes import Planes
from detector.scores import ORDERS, FittedScore, ScoreName
from detector.trajectory import END, PROMPT, PROMPT_MEAN, Look

DRAWS = 20
RESPLITS = 1000
GUARD = "guard as shipped (prompt:mahalanobis)"
SURFACE = "surface counts, no model"


@dataclass(frozen=True)
class QuestionSet:
    """One questions file with what was collected of it, a row a question, copies too."""

    name: str
    rows: tuple[Question, ...]
    collection: Collection
    deviation: Tensor | None

    @classmethod
    def read(cls, path: Path, collected: Path) -> QuestionSet:
        """Raises CalibrationError when the file is not collected, or has changed since."""
        rows, digest = read_rows(path)
        folder = collected / path.stem
        store = CollectionFolder(folder)
        collection = store.read()
        if collection.record.source.sha256 != digest:
            raise CalibrationError(
                f"{str(path)!r} is not the file that {str(folder)!r} was collected from: collect "
                "it again into another --out",
                param="collected",
            )
        return cls(path.stem, tuple(rows), collection, store.deviation(collection.keys))

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


def _trajectory_scorer(part: Part, gaussians: GaussianFits) -> Scorer:
    fitted = FittedScore.fit(part.score, gaussians, part.order)
    return lambda questions: _scored(fitted, questions.planes(part.look)).numpy()


def _scored(fitted: FittedScore, planes: Planes) -> Tensor:
    return torch.cat([fitted.score(batch) for batch in planes.batches()]).double()


def _likelihood_scorer(score: Callable[[Tensor], Tensor]) -> Scorer:
    return lambda questions: score(questions.collection.likelihood[questions.indices]).numpy()


def _deviation(questions: QuestionSet) -> Scores:
    if questions.deviation is None:
        raise CalibrationError(
            f"the collection of {questions.name!r} lacks the dropout baseline that others have: "
            "run `python -m calibration dropout` on it",
            param="collected",
        )
    deviation: Scores = questions.deviation[questions.indices].numpy()
    return deviation


def scorers(fit: QuestionSet) -> dict[str, Scorer]:
    """Every score that the collection supports, fitted where it needs fitting."""
    looks = {
        look: GaussianFits(fit.planes(look), FitOptions().rank)
        for look in fit.collection.record.parsed_looks
    }
    made: dict[str, Scorer] = {}

    def add(title: str, look: Look, score: ScoreName, order: int = 0) -> None:
        if look in looks:
            made[title] = _trajectory_scorer(Part(look, score, order), looks[look])

    add(GUARD, PROMPT, "mahalanobis")
    for stage, look in (("prompt", PROMPT), ("response", END)):
        if look not in looks:
            continue
        if look == END:
            add("response: Mahalanobis, mean over layers", END, "mahalanobis")
        add(f"{stage}: Mahalanobis of first differences", look, "mahalanobis", 1)
        for order in ORDERS:
            add(f"{stage}: TV, Ledoit-Wolf, k={order}", look, "tv-paper", order)
        if fit.collection.record.n_layers >= 8:
            for order in ORDERS:
                if bool((looks[look].diagonal.variance[1:] > 0).all()):
                    add(f"{stage}: TV as released, k={order}", look, "tv-reference", order)
    add("input-embedding Mahalanobis", PROMPT_MEAN, "mahalanobis-last")
    add("output-embedding Mahalanobis", END, "mahalanobis-last")
    add("CoE-R", END, "coe-r")
    add("CoE-C", END, "coe-c")
    if not bool(fit.collection.likelihood.isnan().any()):
        made["perplexity"] = _likelihood_scorer(perplexity)
        made["max softmax probability"] = _likelihood_scorer(max_softmax)
        made["entropy"] = _likelihood_scorer(entropy)
    if fit.deviation is not None:
        made["MC dropout"] = _deviation
    made[SURFACE] = lambda questions: surface_scores(fit.texts, questions.texts)
    return made


@dataclass(frozen=True)
class Cell:
    """One score on one OOD file, all in [0, 1].

    `auroc` and `fpr95` over all rows; `drawn` their means and standard deviations over
    balanced draws; `recall` at alpha, mean over conformal re-splits; `matched` AUROC over
    `n_pairs` matched pairs; `youden_recall` and `youden_false_alarms` at the cut that
    maximises their difference, chosen with the OOD data.
    """

    auroc: float
    fpr95: float
    drawn_auroc: tuple[float, float]
    drawn_fpr95: tuple[float, float]
    recall: float
    matched: float | None
    n_pairs: int
    youden_recall: float
    youden_false_alarms: float


@dataclass(frozen=True)
class ScoreRow:
    """One score: a cell for each OOD file, and what holds on the ID file.

    `false_alarms` is the mean realised rate over random re-splits, `false_alarms_exact` the
    mean over all of them, `false_alarms_high` the 95 % point of the random ones,
    `pac_false_alarms` their mean under the PAC threshold, None where too few questions allow
    one. `quality` maps each file with
    numeric answers to Kendall's and Spearman's correlation of the score with a wrong answer.
    """

    name: str
    cells: dict[str, Cell]
    false_alarms: float
    false_alarms_exact: float
    false_alarms_high: float
    pac_false_alarms: float | None
    length_correlation: float | None
    quality: dict[str, tuple[float, float]]

    def mean(self, field: str, sets: Sequence[str]) -> float | None:
        """The mean of one field over the OOD files that have it; None without one."""
        values = [getattr(self.cells[name], field) for name in sets]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class Benchmark:
    """Everything measured, and the raw scores and distances behind the pictures.

    `bound` is the 95 % point of the realised false-alarm rate by the Beta law, `bound_seen`
    that of the rate seen on as few questions as a re-split leaves, by the beta-binomial law.
    `peeking_false_alarms` is the exact mean over re-splits of a guard that takes every look.
    """

    model_name: str
    id_name: str
    n_fit: int
    n_test: int
    alpha: float
    n_conformal: int
    bound: float
    bound_seen: float
    near: tuple[str, ...]
    far: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    accuracy: dict[str, float]
    peeking_false_alarms: float | None
    scores: dict[str, dict[str, list[float]]]
    layers: dict[str, list[float]]


def exact_false_alarms(inside: Scores, alpha: float) -> float:
    """The mean realised false-alarm rate over every split of scores into two halves.

    A score outside the conformal half is flagged when fewer than k of that half reach it,
    and how many do is hypergeometric.
    """
    n = len(inside) // 2
    k = conformal.rank(n, alpha)
    reaching = (inside[None] >= inside[:, None]).sum(1) - 1
    return float(hypergeom.cdf(k - 1, len(inside) - 1, reaching, n).mean())


@dataclass(frozen=True)
class _Resplits:
    """Thresholds from random halves of the ID test scores, and rates on the other halves."""

    thresholds: Scores
    rates: Scores
    pac_rates: Scores | None

    @classmethod
    def of(cls, inside: Scores, alpha: float) -> _Resplits:
        draw = np.random.default_rng(0)
        n = len(inside) // 2
        k = conformal.rank(n, alpha)
        try:
            pac = conformal.rank(n, alpha, "pac")
        except TooFewQuestionsError:
            pac = None
        thresholds, rates, pac_rates = [], [], []
        for _ in range(RESPLITS):
            shuffled = draw.permutation(inside)
            calibration, rest = np.sort(shuffled[:n]), shuffled[n:]
            thresholds.append(calibration[-k])
            rates.append((rest > calibration[-k]).mean())
            if pac is not None:
                pac_rates.append((rest > calibration[-pac]).mean())
        return cls(np.array(thresholds), np.array(rates), np.array(pac_rates) if pac else None)


def _cell(
    inside: Scores, outside: Scores, test: QuestionSet, ood: QuestionSet, resplits: _Resplits
) -> Cell:
    draw = np.random.default_rng(0)
    n = min(len(inside), len(outside))
    drawn = []
    for _ in range(DRAWS):
        a, b = (draw.choice(scores, n, replace=False) for scores in (inside, outside))
        drawn.append((auroc(a, b), fpr95(a, b)))
    means, spreads = np.mean(drawn, 0), np.std(drawn, 0)
    labels = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    false, true, _ = roc_curve(labels, np.r_[inside, outside])
    cut = int(np.argmax(true - false))
    matched, n_pairs = matched_auroc(inside, outside, test.texts, ood.texts)
    return Cell(
        auroc=auroc(inside, outside),
        fpr95=fpr95(inside, outside),
        drawn_auroc=(float(means[0]), float(spreads[0])),
        drawn_fpr95=(float(means[1]), float(spreads[1])),
        recall=float((outside[None] > resplits.thresholds[:, None]).mean()),
        matched=matched,
        n_pairs=n_pairs,
        youden_recall=float(true[cut]),
        youden_false_alarms=float(false[cut]),
    )


def _quality(scores: Scores, questions: QuestionSet) -> tuple[float, float] | None:
    """Correlations with a wrong answer; None when all are right, all wrong, or none numeric."""
    known = [(s, not c) for s, c in zip(scores, questions.correct, strict=True) if c is not None]
    if len({wrong for _, wrong in known}) < 2 or len({score for score, _ in known}) < 2:
        return None
    values, wrong = zip(*known, strict=True)
    return (
        float(kendalltau(values, wrong).statistic),
        float(spearmanr(values, wrong).statistic),
    )


def benchmark(
    id_path: Path,
    near: Sequence[Path],
    far: Sequence[Path],
    collected: Path,
    *,
    first: int = 60,
    alpha: float = 0.05,
    progress: Callable[[str], None] = lambda _: None,
) -> Benchmark:
    """Measure every score. Raises CalibrationError when collections differ or lack answers,
    an OOD file equals the ID file, or the ID test rows are too few for alpha.
    """
    whole = QuestionSet.read(id_path, collected)
    fit = whole.at([n for n in range(len(whole.rows)) if in_first(n, first)])
    test = whole.at([n for n in range(len(whole.rows)) if not in_first(n, first)])
    sets = {path.stem: QuestionSet.read(path, collected) for path in (*near, *far)}
    for ood in sets.values():
        whole.collection.record.require_same(
            ood.collection.record,
            f"collections of {whole.name!r} and {ood.name!r}",
            "collect both with the same model and options",
        )
        if ood.collection.record.source.sha256 == whole.collection.record.source.sha256:
            raise CalibrationError(
                f"OOD file {ood.name!r} equals the ID file: give another file as OOD", param="ood"
            )
    n_conformal = len(test.rows) // 2
    n_rest = len(test.rows) - n_conformal
    k = conformal.rank(n_conformal, alpha)
    rows, kept = [], {}
    for name, scorer in scorers(fit).items():
        progress(name)
        inside = scorer(test)
        resplits = _Resplits.of(inside, alpha)
        outside = {ood.name: scorer(ood) for ood in sets.values()}
        cells = {n: _cell(inside, outside[n], test, ood, resplits) for n, ood in sets.items()}
        quality = {
            questions.name: found
            for questions, scores in [(test, inside), *((sets[n], outside[n]) for n in sets)]
            if (found := _quality(scores, questions)) is not None
        }
        rows.append(
            ScoreRow(
                name=name,
                cells=cells,
                false_alarms=float(resplits.rates.mean()),
                false_alarms_exact=exact_false_alarms(inside, alpha),
                false_alarms_high=float(np.quantile(resplits.rates, 0.95)),
                pac_false_alarms=(
                    None if resplits.pac_rates is None else float(resplits.pac_rates.mean())
                ),
                length_correlation=length_correlation(inside, test.texts),
                quality=quality,
            )
        )
        kept[name] = {whole.name: inside.tolist()} | {n: s.tolist() for n, s in outside.items()}
    return Benchmark(
        model_name=whole.collection.record.model_name,
        id_name=whole.name,
        n_fit=len(fit.rows),
        n_test=len(test.rows),
        alpha=alpha,
        n_conformal=n_conformal,
        bound=conformal.false_alarm_bound(n_conformal, k),
        bound_seen=float(betabinom.ppf(0.95, n_rest, k, n_conformal + 1 - k) / n_rest),
        near=tuple(path.stem for path in near),
        far=tuple(path.stem for path in far),
        rows=tuple(rows),
        accuracy=_accuracies([test, *sets.values()]),
        peeking_false_alarms=_peeking(fit, test, alpha),
        scores=kept,
        layers=_mean_distances(fit, {whole.name: test} | sets),
    )


def _accuracies(sets: Sequence[QuestionSet]) -> dict[str, float]:
    found = {}
    for questions in sets:
        known = [correct for correct in questions.correct if correct is not None]
        if known:
            found[questions.name] = sum(known) / len(known)
    return found


def _peeking(fit: QuestionSet, test: QuestionSet, alpha: float) -> float | None:
    """The mean realised rate of a guard that flags as soon as any look does, with one
    threshold on the maximum of all looks; None with a single look.
    """
    looks = [look for look in fit.collection.record.parsed_looks if look != PROMPT_MEAN]
    if len(looks) < 2:
        return None
    columns = []
    for look in looks:
        planes = fit.planes(look)
        if int((~planes[0][:, 0].isnan()).sum()) < MIN_TRAJECTORIES:
            continue
        (fitted,) = fit_look(look, [Part(look)], planes, FitOptions().rank)
        raw = _scored(fitted.score, test.planes(look))
        columns.append(fitted.standardise(raw).nan_to_num(nan=-torch.inf))
    maxima: Scores = torch.stack(columns).amax(0).numpy()
    return exact_false_alarms(maxima, alpha)


def _mean_distances(fit: QuestionSet, sets: Mapping[str, QuestionSet]) -> dict[str, list[float]]:
    """Each file's mean distance by layer, relative to the ID test rows': the paper's
    Figure 3 in one number a layer.
    """
    fitted = FittedScore.fit("mahalanobis", GaussianFits(fit.planes(PROMPT)))

    def mean_distances(questions: QuestionSet) -> Tensor:
        batches = questions.planes(PROMPT).batches()
        return torch.cat([fitted.distances(batch) for batch in batches]).mean(0)

    means = {name: mean_distances(questions) for name, questions in sets.items()}
    base = next(iter(means.values())).clamp(min=1e-9)
    # Layer 0 is the same token for all and has no distance.
    return {name: (mean / base)[1:].tolist() for name, mean in means.items()}
