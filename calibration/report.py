"""Report: what an artifact does on held-out in-distribution questions and on OOD files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from calibration.collection import Collection, CollectionFolder, read_collections
from calibration.fit import Pool, pooled
from detector import conformal
from detector.artifact import Artifact
from detector.errors import CalibrationError
from detector.groups import Grouping

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OodRow:
    """One OOD file. AUROC and FPR95 in [0, 1], OOD positive; recall at the threshold."""

    name: str
    n_questions: int
    auroc: float
    fpr95: float
    recall: float


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
    """Realised false alarms on the holdout split, and a row for each OOD file."""

    alpha: float
    threshold: float
    n_conformal: int
    bound: float
    n_holdout: int
    n_false_alarms: int
    groups: tuple[GroupRow, ...]
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
        if self.ood:
            width = max(len(row.name) for row in self.ood)
            lines += ["", f"{'OOD file':{width}}  questions  AUROC  FPR95  recall"]
            lines += [
                f"{row.name:{width}}  {row.n_questions:9}  {100 * row.auroc:5.1f}  "
                f"{100 * row.fpr95:5.1f}  {100 * row.recall:6.1f}"
                for row in self.ood
            ]
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
    looks = [fitted.look for fitted in detector.looks]
    for folder, collection in zip(folders, collections, strict=True):
        _require_made_alike(artifact, collection, folder)
    pool = pooled(collections)["holdout"]
    inside = _finite(detector.maxima(pool.at(looks)))
    if not len(inside):
        raise CalibrationError(
            "the holdout split is empty: collect more in-distribution questions",
            param="collected",
        )
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
        outside = _finite(detector.maxima(outside_pool.at(looks)))
        rows.append(
            OodRow(
                name=collection.record.source.name,
                n_questions=len(outside),
                auroc=auroc(inside, outside),
                fpr95=fpr95(inside, outside),
                recall=float((outside > cuts).mean()),
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
        ood=tuple(rows),
    )


def _groups(grouping: Grouping | None, pool: Pool) -> list[str | None]:
    return [None] * len(pool) if grouping is None else pool.groups(grouping)


def _thresholds(artifact: Artifact, groups: Sequence[str | None]) -> Scores:
    cuts = {group: artifact.detector.threshold_of(group) for group in set(groups)}
    return np.array([cuts[group] for group in groups])


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
