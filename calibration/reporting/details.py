"""What a report's page shows beside the report, of the same judged questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, betabinom, binom
from sklearn.metrics import roc_curve

from calibration.confounds import n_words
from calibration.reporting.explained import Explained, explained
from calibration.reporting.false_alarms import FalseAlarms, sources_of, tabulated, variations_of
from calibration.reporting.judged import Judged
from calibration.reporting.report import ALPHAS, detector_at
from calibration.reporting.scoring import Flags
from detector import conformal
from detector.conformal import CONFIDENCE, Calibration
from detector.detector import Detector
from detector.errors import CalibrationError, TooFewQuestionsError
from detector.manifest import Manifest
from detector.verdict import Guarantee

N_BINS = 5
N_WORST = 25
_CURVE_ALPHAS = tuple(np.geomspace(0.001, 0.5, 61).tolist())
_ROC_POINTS = 400
_TAIL = (1 - CONFIDENCE) / 2


@dataclass(frozen=True)
class ThresholdRow:
    """A threshold at an alpha, of a group if it has its own.

    `low` and `high` are the 95 % interval of the score that a share alpha of all questions in scope
    lie above, None where it has no upper end; `rate_low` and `rate_high` hold the true false-alarm
    rate of this threshold with 95 %, as far as units are alike.
    """

    alpha: float
    group: str | None
    n_units: int
    threshold: float
    low: float
    high: float | None
    rate_low: float
    rate_high: float


@dataclass(frozen=True)
class CurvePoint:
    """The false alarms among holdout units at an alpha, and where those of a guard that keeps its
    promise lie: the true rate, by the luck of calibration, and what a holdout split of this size
    would show of it.
    """

    alpha: float
    realised: float
    rate_low: float
    rate_high: float
    shown_low: float
    shown_high: float


@dataclass(frozen=True)
class Roc:
    """What is found of an OOD file, by what is flagged of the holdout questions."""

    name: str
    false: tuple[float, ...]
    true: tuple[float, ...]


@dataclass(frozen=True)
class Recalled:
    """How many of an OOD file's questions are flagged at an alpha, None where it is not kept."""

    name: str
    n_questions: int
    n_flagged: dict[float, int | None]


@dataclass(frozen=True)
class Alarm:
    """A holdout question that is flagged: its key and what it is, and its text if that is shown."""

    key: str
    source: str
    variation: str
    n_words: int
    score: float
    threshold: float
    p_value: float
    text: str | None


@dataclass(frozen=True)
class Details:
    """Everything on a page that is not in the report itself. `lengths` are false alarms by fifths
    of the number of characters; `scores` are the holdout's and each OOD file's.
    """

    manifest: Manifest
    artifact_id: str
    guarantee: Guarantee
    n_questions: int
    n_templates: int
    sizes: dict[str, int]
    thresholds: tuple[ThresholdRow, ...]
    curve: tuple[CurvePoint, ...]
    lengths: tuple[FalseAlarms, ...]
    rocs: tuple[Roc, ...]
    recalled: tuple[Recalled, ...]
    scores: dict[str, tuple[float, ...]]
    worst: tuple[Alarm, ...]
    n_flagged: int
    explained: tuple[Explained, ...] = ()


def details(judged: Judged, *, texts: bool) -> Details:
    """Of what was judged; questions' texts are among it only if they are asked for."""
    artifact, inside = judged.artifact, judged.inside
    detector = artifact.detector
    flagged = inside.flagged(detector)
    return Details(
        manifest=artifact.manifest,
        artifact_id=artifact.id,
        guarantee=detector.guarantee,
        n_questions=judged.pools.n_questions,
        n_templates=judged.pools.n_templates,
        sizes={str(split): n for split, n in judged.pools.sizes.items()},
        thresholds=tuple(_thresholds(judged)),
        curve=tuple(_curve(judged)),
        lengths=tuple(_by_characters(judged, flagged)),
        rocs=tuple(_rocs(judged)),
        recalled=tuple(_recalled(judged)),
        scores={
            "holdout": tuple(inside.scores.tolist()),
            **{name: tuple(found.scores.tolist()) for name, found in judged.outside.items()},
        },
        worst=tuple(_worst(judged, flagged, texts=texts)),
        n_flagged=int(flagged.sum()),
        explained=explained(judged, texts=texts),
    )


def _thresholds(judged: Judged) -> list[ThresholdRow]:
    detector = judged.artifact.detector
    rows = []
    for alpha in sorted({detector.alpha, *ALPHAS}, reverse=True):
        at = detector_at(judged, alpha)
        if at is not None:
            rows.append(threshold_row(at, None, at.calibration))
            rows += [threshold_row(at, group, found) for group, found in at.groups.items()]
    return rows


def threshold_row(detector: Detector, group: str | None, calibration: Calibration) -> ThresholdRow:
    n, alpha = calibration.n_units, detector.alpha
    k = conformal.rank(n, alpha, detector.guarantee)
    # The k-th largest lies above the true quantile exactly when k or more of n do.
    fewest, most = binom.ppf([_TAIL, 1 - _TAIL], n, alpha)
    return ThresholdRow(
        alpha=alpha,
        group=group,
        n_units=n,
        threshold=detector.threshold_of(group),
        low=float(calibration.threshold(min((most + 1) / (n + 1), 1 - 1e-9))),
        high=_at_or_none(calibration, float(fewest) / (n + 1)) if fewest else None,
        rate_low=float(beta.ppf(_TAIL, k, n + 1 - k)),
        rate_high=float(beta.ppf(1 - _TAIL, k, n + 1 - k)),
    )


def _at_or_none(calibration: Calibration, alpha: float) -> float | None:
    try:
        return calibration.threshold(alpha)
    except TooFewQuestionsError:
        return None


def _curve(judged: Judged) -> list[CurvePoint]:
    """Under the marginal guarantee, whatever the artifact's is: its rate is to lie around alpha."""
    inside, marginal = judged.inside, judged.artifact.detector
    n, n_holdout = judged.pools["conformal"].n_units, inside.pool.n_units
    points = []
    for alpha in _CURVE_ALPHAS:
        try:
            at, k = marginal.at(alpha, "marginal"), conformal.rank(n, alpha)
        except CalibrationError:
            # Too small for the conformal questions, or so large that the threshold is not finite.
            continue
        # As of units that have one question each.
        low, high = beta.ppf([_TAIL, 1 - _TAIL], k, n + 1 - k)
        fewest, most = betabinom.ppf([_TAIL, 1 - _TAIL], n_holdout, k, n + 1 - k)
        points.append(
            CurvePoint(
                alpha=alpha,
                realised=FalseAlarms.of("", inside.flagged(at), inside.pool.units).rate_by_unit,
                rate_low=float(low),
                rate_high=float(high),
                shown_low=float(fewest) / n_holdout,
                shown_high=float(most) / n_holdout,
            )
        )
    return points


def _by_characters(judged: Judged, flagged: Flags) -> list[FalseAlarms]:
    """The shortest first; fewer than N_BINS where many questions are equally long."""
    pool = judged.inside.pool
    lengths = np.array([len(text) for text in pool.texts])
    shares = np.arange(1, N_BINS) / N_BINS
    edges = sorted({*np.quantile(lengths, shares, method="higher").tolist()})
    places = np.searchsorted(edges, lengths, side="right")
    names = {}
    for place in np.unique(places).tolist():
        within = lengths[places == place]
        names[place] = f"{within.min()} to {within.max()} characters"
    by_name = {
        row.name: row
        for row in tabulated([[names[place]] for place in places.tolist()], flagged, pool)
    }
    return [by_name[name] for name in names.values()]


def _rocs(judged: Judged) -> list[Roc]:
    inside = judged.inside.scores
    rocs = []
    for name, outside in judged.outside.items():
        labels = np.r_[np.zeros(len(inside)), np.ones(len(outside.scores))]
        false, true, _ = roc_curve(labels, np.r_[inside, outside.scores])
        kept = np.unique(np.linspace(0, len(false) - 1, _ROC_POINTS).round().astype(int))
        rocs.append(Roc(name, tuple(false[kept].tolist()), tuple(true[kept].tolist())))
    return rocs


def _recalled(judged: Judged) -> list[Recalled]:
    alphas = sorted({judged.artifact.detector.alpha, *ALPHAS}, reverse=True)
    detectors = {alpha: detector_at(judged, alpha) for alpha in alphas}
    return [
        Recalled(
            name,
            len(scored.pool),
            {
                alpha: None if at is None else int(scored.flagged(at).sum())
                for alpha, at in detectors.items()
            },
        )
        for name, scored in judged.outside.items()
    ]


def _worst(judged: Judged, flagged: Flags, *, texts: bool) -> list[Alarm]:
    """Those with the smallest p-values, and of these the highest scores."""
    detector, inside = judged.artifact.detector, judged.inside
    pool, found = inside.pool, np.flatnonzero(flagged).tolist()
    keys, own, sources = pool.keys, pool.texts, sources_of(pool)
    variations: Sequence[Sequence[str]] = variations_of(pool)
    alarms = []
    for place in found:
        group, score = inside.groups[place], float(inside.scores[place])
        calibration = detector.calibration
        if group is not None:
            calibration = detector.groups.get(group, calibration)
        alarms.append(
            Alarm(
                key=keys[place],
                source=sources[place][0],
                variation=", ".join(variations[place]),
                n_words=n_words(own[place]),
                score=score,
                threshold=detector.threshold_of(group),
                p_value=calibration.p_value(score),
                text=own[place] if texts else None,
            )
        )
    return sorted(alarms, key=lambda alarm: (alarm.p_value, -alarm.score))[:N_WORST]
