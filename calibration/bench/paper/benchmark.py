"""Benchmark: every score on in-distribution and OOD files, by the paper's protocol and beyond.

The paper's protocol (arXiv 2405.14039): the first rows of every hundred of the ID file fit,
the rest test; AUROC and FPR95 with OOD positive. Beyond it: realised false alarms and recall
at alpha by conformal re-splits of the ID test scores, the surface baseline, matched pairs,
and correlation with length. No OOD question takes part in any choice, save in the paper's
Youden cut, which is named as what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import betabinom, hypergeom, kendalltau, spearmanr
from sklearn.metrics import roc_curve
from torch import Tensor

from calibration.bench.paper.result import Benchmark, Cell, ScoreRow
from calibration.bench.paper.scorers import QuestionSet, scored, scorers
from calibration.confounds import Scores, length_correlation, matched_auroc
from calibration.fit import FitOptions
from calibration.questions import in_first
from calibration.reporting.scoring import auroc, fpr95
from detector import conformal
from detector.errors import CalibrationError, TooFewQuestionsError
from detector.fit_split import FitSplit
from detector.fitted_look import MIN_TRAJECTORIES, Part, fit_look
from detector.scores import SCORES
from detector.trajectory import PROMPT, PROMPT_MEAN

DRAWS = 20
RESPLITS = 1000


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
class Resplits:
    """Thresholds from random halves of the ID test scores, and rates on the other halves."""

    thresholds: Scores
    rates: Scores
    pac_rates: Scores | None

    @classmethod
    def of(cls, inside: Scores, alpha: float) -> Resplits:
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
    inside: Scores, outside: Scores, test: QuestionSet, ood: QuestionSet, resplits: Resplits
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
    _require_baselines_alike([whole, *sets.values()], collected)
    n_conformal = len(test.rows) // 2
    n_rest = len(test.rows) - n_conformal
    k = conformal.rank(n_conformal, alpha)
    rows, kept = [], {}
    for name, scorer in scorers(fit).items():
        progress(name)
        inside = scorer(test)
        resplits = Resplits.of(inside, alpha)
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


def _require_baselines_alike(sets: Sequence[QuestionSet], collected: Path) -> None:
    lacking = [str(collected / questions.name) for questions in sets if questions.baselines is None]
    if 0 < len(lacking) < len(sets):
        raise CalibrationError(
            f"{', '.join(lacking)} lacks the baselines that other collections have: run "
            f"`python -m calibration.bench.paper baselines {' '.join(lacking)}`",
            param="collected",
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
        asked = test.planes(look)
        reached = ~asked[0][:, 0].isnan()
        scores = fitted.standardise(scored(fitted.score, asked))
        columns.append(scores.where(reached, -torch.inf))
    maxima: Scores = torch.stack(columns).amax(0).numpy()
    return exact_false_alarms(maxima, alpha)


def _mean_distances(fit: QuestionSet, sets: Mapping[str, QuestionSet]) -> dict[str, list[float]]:
    """Each file's mean distance by layer, relative to the ID test rows': the paper's
    Figure 3 in one number a layer.
    """
    fitted = SCORES["mahalanobis"].fit(FitSplit(fit.planes(PROMPT)))

    def mean_distances(questions: QuestionSet) -> Tensor:
        batches = questions.planes(PROMPT).batches()
        return torch.cat([fitted.distances(batch) for batch in batches]).mean(0)

    means = {name: mean_distances(questions) for name, questions in sets.items()}
    base = next(iter(means.values())).clamp(min=1e-9)
    # Layer 0 is the same token for all and has no distance.
    return {name: (mean / base)[1:].tolist() for name, mean in means.items()}
