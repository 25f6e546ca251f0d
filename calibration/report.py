"""Report: what an artifact does on held-out in-distribution questions and on OOD files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from calibration.collection import Collection, CollectionFolder, read_collections
from calibration.confounds import Scores, length_correlation, matched_auroc, surface_scores
from calibration.pooling import Pool, pooled
from detector import conformal
from detector.artifact import Artifact
from detector.detector import Detector
from detector.errors import CalibrationError
from detector.groups import Grouping

_GUARD = "guard"


@dataclass(frozen=True)
class OodRow:
    """One score on one OOD file: AUROC and FPR95 in [0, 1], OOD positive, and what confounds
    could explain of them.

    `score` is "guard" or one of its parts; `recall` is at the threshold, the guard's alone.
    `matched` is the AUROC over `n_pairs` pairs of like surface, `surface_auroc` and
    `surface_fpr95` are those of surface counts without a model.
    """

    name: str
    score: str
    n_questions: int
    auroc: float
    fpr95: float
    recall: float | None
    matched: float | None
    n_pairs: int
    surface_auroc: float
    surface_fpr95: float

    def cells(self) -> list[str]:
        """As the report prints them, rates in per cent."""
        matched = "-" if self.matched is None else f"{100 * self.matched:.1f}"
        return [
            self.name,
            self.score,
            str(self.n_questions),
            f"{100 * self.auroc:.1f}",
            f"{100 * self.fpr95:.1f}",
            "-" if self.recall is None else f"{100 * self.recall:.1f}",
            f"{matched} ({self.n_pairs})",
            f"{100 * self.surface_auroc:.1f}",
            f"{100 * self.surface_fpr95:.1f}",
        ]


_OOD_HEAD = [
    "OOD file",
    "score",
    "questions",
    "AUROC",
    "FPR95",
    "recall",
    "matched (pairs)",
    "surface AUROC",
    "surface FPR95",
]


@dataclass(frozen=True)
class GroupRow:
    """One group of questions: its threshold, and false alarms among its holdout questions."""

    name: str
    n_conformal: int
    threshold: float
    n_holdout: int
    n_false_alarms: int


@dataclass(frozen=True)
class Report:
    """Realised false alarms on the holdout split, and rows for each OOD file.

    `length_correlations` maps each score to its rank correlation with the number of words.
    """

    alpha: float
    threshold: float
    n_conformal: int
    bound: float
    n_holdout: int
    n_false_alarms: int
    groups: tuple[GroupRow, ...]
    length_correlations: dict[str, float | None]
    ood: tuple[OodRow, ...]

    @property
    def false_alarm_rate(self) -> float:
        return self.n_false_alarms / self.n_holdout

    def __str__(self) -> str:
        low, high = conformal.proportion_interval(self.n_false_alarms, self.n_holdout)
        lines = [
            f"alpha {self.alpha:g}, threshold {self.threshold:.4f}, "
            f"{self.n_conformal} conformal questions "
            f"(realised rate at most {self.bound:.1%} with 95 % confidence)",
            f"false alarms on holdout: {self.n_false_alarms} of {self.n_holdout} = "
            f"{self.false_alarm_rate:.1%}, 95 % interval {low:.1%} to {high:.1%}",
        ]
        for group in self.groups:
            low, high = conformal.proportion_interval(group.n_false_alarms, group.n_holdout)
            lines.append(
                f"  {group.name} ({group.n_conformal} conformal, threshold "
                f"{group.threshold:.4f}): {group.n_false_alarms} of {group.n_holdout}, "
                f"95 % interval {low:.1%} to {high:.1%}"
            )
        for score, correlation in self.length_correlations.items():
            shown = "none" if correlation is None else f"{correlation:+.2f}"
            lines.append(f"rank correlation of {score} with the number of words: {shown}")
        if self.ood:
            table = [_OOD_HEAD, *(row.cells() for row in self.ood)]
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines.append("")
            for cells in table:
                aligned = [
                    f"{cell:<{width}}" if place < 2 else f"{cell:>{width}}"
                    for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
                ]
                lines.append("  ".join(aligned))
        return "\n".join(lines)


def auroc(inside: Scores, outside: Scores) -> float:
    labels = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    return float(roc_auc_score(labels, np.r_[inside, outside]))


def fpr95(inside: Scores, outside: Scores) -> float:
    """The false-positive rate at the first threshold that finds 95 % of the OOD questions."""
    labels = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    false, true, _ = roc_curve(labels, np.r_[inside, outside], drop_intermediate=False)
    return float(false[np.argmax(true >= 0.95)])


def report(artifact: Artifact, folders: Sequence[Path], ood_folders: Sequence[Path]) -> Report:
    """Judge the holdout split of the in-distribution collections and all OOD questions.

    Raises CalibrationError when a collection was not made as the artifact was, when an
    OOD file is one of the in-distribution files, or when the holdout split is empty.
    """
    detector = artifact.detector
    collections = read_collections(folders)
    for folder, collection in zip(folders, collections, strict=True):
        _require_made_alike(artifact, collection, folder)
    pools = pooled(collections)
    pool = pools["holdout"]
    if not len(pool):
        raise CalibrationError(
            "the holdout split is empty: collect more in-distribution questions",
            param="collected",
        )
    inside_scores = _scores(detector, pool)
    inside = inside_scores[_GUARD]
    fitted_texts = pools["fit"].texts
    inside_surface = surface_scores(fitted_texts, pool.texts)
    grouping = artifact.manifest.grouping
    inside_groups = _groups(grouping, pool)
    flagged = inside > _thresholds(artifact, inside_groups)
    known = {collection.record.source.sha256 for collection in collections}
    rows = []
    for folder in ood_folders:
        collection = CollectionFolder(folder).read()
        _require_made_alike(artifact, collection, folder)
        if collection.record.source.sha256 in known:
            raise CalibrationError(
                f"OOD collection {str(folder)!r} is of an in-distribution file: give another "
                "file as OOD",
                param="ood",
            )
        outside_pool = Pool((collection,), tuple(range(len(collection.keys))))
        cuts = _thresholds(artifact, _groups(grouping, outside_pool))
        surface = surface_scores(fitted_texts, outside_pool.texts)
        for score, outside in _scores(detector, outside_pool).items():
            matched, n_pairs = matched_auroc(
                inside_scores[score], outside, pool.texts, outside_pool.texts
            )
            rows.append(
                OodRow(
                    name=collection.record.source.name,
                    score=score,
                    n_questions=len(outside),
                    auroc=auroc(inside_scores[score], outside),
                    fpr95=fpr95(inside_scores[score], outside),
                    recall=float((outside > cuts).mean()) if score == _GUARD else None,
                    matched=matched,
                    n_pairs=n_pairs,
                    surface_auroc=auroc(inside_surface, surface),
                    surface_fpr95=fpr95(inside_surface, surface),
                )
            )
    n = len(detector.calibration)
    k = conformal.rank(n, detector.alpha, detector.guarantee)
    return Report(
        alpha=detector.alpha,
        threshold=detector.threshold,
        n_conformal=n,
        bound=conformal.false_alarm_bound(n, k),
        n_holdout=len(inside),
        n_false_alarms=int(flagged.sum()),
        groups=tuple(
            GroupRow(
                name=name,
                n_conformal=len(scores),
                threshold=detector.threshold_of(name),
                n_holdout=inside_groups.count(name),
                n_false_alarms=sum(
                    bool(flag)
                    for flag, group in zip(flagged, inside_groups, strict=True)
                    if group == name
                ),
            )
            for name, scores in detector.groups.items()
        ),
        length_correlations={
            score: length_correlation(scores, pool.texts) for score, scores in inside_scores.items()
        },
        ood=tuple(rows),
    )


def _groups(grouping: Grouping | None, pool: Pool) -> list[str | None]:
    return [None] * len(pool) if grouping is None else pool.groups(grouping)


def _thresholds(artifact: Artifact, groups: Sequence[str | None]) -> Scores:
    cuts = {group: artifact.detector.threshold_of(group) for group in set(groups)}
    return np.array([cuts[group] for group in groups])


def _scores(detector: Detector, pool: Pool) -> dict[str, Scores]:
    """The guard's decision statistic, and each part's score if there are several."""
    planes = pool.at([fitted.look for fitted in detector.looks])
    scores = {_GUARD: _finite(detector.maxima(planes))}
    if len(detector.looks) > 1:
        for fitted in detector.looks:
            alone = replace(detector, looks=(fitted,))
            scores[str(fitted.part)] = _finite(alone.maxima(planes))
    return scores


def _finite(scores: Tensor) -> Scores:
    """A generation without any look scores lowest of all; ROC curves want it finite."""
    finite: Scores = np.nan_to_num(scores.double().numpy(), neginf=-1e300)
    return finite


def _require_made_alike(artifact: Artifact, collection: Collection, folder: Path) -> None:
    manifest = artifact.manifest
    manifest.require(collection.record.fingerprint, collection.record.model_name)
    if collection.record.context != manifest.context:
        raise CalibrationError(
            f"collection {str(folder)!r} was made in another context than the artifact: "
            "collect it with the same --judged, --template, sampling and --max-tokens",
            param="collected",
        )
