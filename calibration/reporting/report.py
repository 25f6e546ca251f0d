"""Report: what an artifact does on held-out in-distribution questions and on OOD files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.collection import Collection, CollectionFolder
from calibration.confounds import length_correlation, surface_scores
from calibration.enough import keeps
from calibration.fit import CONTRAST, FitOptions, Material, gather
from calibration.new_templates import rate_on_new_templates
from calibration.pooling import Pool, Pools, made_of, pools_of
from calibration.reporting import false_alarms, recall
from calibration.reporting.false_alarms import FalseAlarms
from calibration.reporting.power import power
from calibration.reporting.recall import Inside
from calibration.reporting.result import AlphaRow, GroupRow, NewTemplates, Report
from calibration.reporting.scoring import GUARD, groups_of, scores_by_part, scores_of, thresholds
from detector import conformal
from detector.artifact import Artifact
from detector.detector import Detector
from detector.errors import CalibrationError, TooFewQuestionsError
from detector.fitted_look import Part

ALPHAS = (0.05, 0.01, 0.001)


@dataclass(frozen=True)
class ReportOptions:
    """What is measured beside the holdout: collections of OOD questions, of ways to type that were
    never calibrated, and of the background that the guard was fitted with. `rank` is of refits.
    """

    ood: tuple[Path, ...] = ()
    unseen_variations: tuple[Path, ...] = ()
    unseen_templates: bool = False
    contrast: tuple[Path, ...] = ()
    rank: int = 128


def report(artifact: Artifact, folders: Sequence[Path], options: ReportOptions) -> Report:
    """Judge the holdout split of the in-distribution collections and all OOD questions.

    Raises CalibrationError when a collection was not made as the artifact was, when these are not
    the collections that it was fitted to, when an OOD file is one of them, or when the holdout
    split is empty.
    """
    detector, grouping = artifact.detector, artifact.manifest.grouping
    collections = _read(artifact, folders)
    pools = pools_of(artifact.manifest, collections)
    pools.require("holdout")
    pool = pools["holdout"]
    scores = scores_by_part(detector, pool)
    groups = groups_of(grouping, pool)
    flagged = scores[GUARD] > thresholds(detector, groups)
    inside = Inside(
        texts=pool.texts,
        scores=scores,
        surface=surface_scores(pools["fit"].texts, pool.texts),
        fitted_texts=pools["fit"].texts,
    )
    outside = _outside(artifact, options.ood, collections)
    n_conformal, n_units = len(pools["conformal"]), pools["conformal"].n_units
    k = conformal.rank(n_units, detector.alpha, detector.guarantee)
    refitted = FitOptions(
        parts=tuple(fitted.part for fitted in detector.looks),
        rank=options.rank,
        alpha=detector.alpha,
        guarantee=detector.guarantee,
        known_templates=not artifact.manifest.n_templates,
    )
    new_templates, powered = None, None
    if options.contrast or options.unseen_templates:
        _require_contrast(options, refitted.parts or ())
        _read(artifact, options.contrast)
        material = gather(folders, refitted, options.contrast)
        if options.unseen_templates:
            new_templates = _new_templates(material, refitted)
        if options.contrast:
            powered = power(material, refitted, grouping)
    return Report(
        alpha=detector.alpha,
        threshold=detector.threshold,
        n_conformal=n_conformal,
        n_units=n_units,
        bound=conformal.false_alarm_bound(n_units, k) if n_units == n_conformal else None,
        holdout=FalseAlarms.of("all", flagged, pool.units),
        tables={
            heading: tuple(false_alarms.tabulated(names, flagged, pool))
            for heading, names in (
                ("source", false_alarms.sources_of(pool)),
                ("variation", false_alarms.variations_of(pool)),
                ("length", false_alarms.lengths_of(pool)),
            )
        },
        groups=tuple(
            GroupRow(
                name=name,
                n_conformal=len(found),
                threshold=detector.threshold_of(name),
                n_holdout=groups.count(name),
                n_false_alarms=int(flagged[[group == name for group in groups]].sum()),
            )
            for name, found in detector.groups.items()
        ),
        length_correlations={
            score: length_correlation(found, pool.texts) for score, found in scores.items()
        },
        ood=tuple(
            row
            for name, found in outside.items()
            for row in recall.ood_rows(detector, grouping, inside, found, name)
        ),
        alphas=_alphas(artifact, pools, outside),
        unseen_variations=_unseen_variations(artifact, options.unseen_variations, pools),
        new_templates=new_templates,
        power=powered,
    )


def _read(artifact: Artifact, folders: Sequence[Path]) -> list[Collection]:
    """Collections that were made as the artifact was."""
    manifest = artifact.manifest
    collections = [CollectionFolder(folder).read() for folder in folders]
    for folder, collection in zip(folders, collections, strict=True):
        manifest.require(collection.record.fingerprint, collection.record.model_name)
        if collection.record.context != manifest.context:
            raise CalibrationError(
                f"collection {str(folder)!r} was made in another context than the artifact: "
                "collect it with the same --judged, --template, sampling and --max-tokens",
                param="collected",
            )
    return collections


def _outside(
    artifact: Artifact, folders: Sequence[Path], inside: Sequence[Collection]
) -> dict[str, Pool]:
    known = {collection.record.source.sha256 for collection in inside}
    outside: dict[str, Pool] = {}
    for folder, collection in zip(folders, _read(artifact, folders), strict=True):
        source = collection.record.source
        if source.sha256 in known:
            raise CalibrationError(
                f"OOD collection {str(folder)!r} is of an in-distribution file: give another "
                "file as OOD",
                param="ood",
            )
        name = source.name if source.name not in outside else str(folder)
        outside[name] = Pool.whole(collection)
    return outside


def _alphas(artifact: Artifact, pools: Pools, outside: Mapping[str, Pool]) -> tuple[AlphaRow, ...]:
    """Everything is scored once: only thresholds differ."""
    detector, grouping = artifact.detector, artifact.manifest.grouping
    holdout = pools["holdout"]
    scored = {
        name: (scores_of(detector, pool), groups_of(grouping, pool))
        for name, pool in {"": holdout, **outside}.items()
    }
    rows = []
    for alpha in ALPHAS:
        at = _at(detector, alpha, pools["conformal"].n_units)
        if at is None:
            rows.append(AlphaRow(alpha, None, dict.fromkeys(outside)))
            continue
        flagged = {name: found > thresholds(at, groups) for name, (found, groups) in scored.items()}
        inside = FalseAlarms.of("all", flagged.pop(""), holdout.units)
        recalled: dict[str, float | None] = {
            name: float(flags.mean()) for name, flags in flagged.items()
        }
        rows.append(AlphaRow(alpha, inside, recalled))
    return tuple(rows)


def _at(detector: Detector, alpha: float, n_units: int) -> Detector | None:
    if not keeps(n_units, alpha, detector.guarantee):
        return None
    try:
        return detector.at(alpha, detector.guarantee)
    except TooFewQuestionsError:
        return None


def _unseen_variations(
    artifact: Artifact, folders: Sequence[Path], pools: Pools
) -> tuple[FalseAlarms, ...]:
    """Of holdout questions alone: fit and threshold have seen the others."""
    if not folders:
        return ()
    pool, _ = made_of(_read(artifact, folders), pools, "holdout")
    if not len(pool):
        raise CalibrationError(
            "no row of --unseen-variations is of holdout questions: write them with "
            "`trajguard vary --held-out --split holdout` of the same files",
            param="unseen-variations",
        )
    detector, grouping = artifact.detector, artifact.manifest.grouping
    flagged = scores_of(detector, pool) > thresholds(detector, groups_of(grouping, pool))
    rows = false_alarms.tabulated(false_alarms.variations_of(pool), flagged, pool)
    return (FalseAlarms.of("all", flagged, pool.units), *rows)


def _new_templates(material: Material, options: FitOptions) -> NewTemplates:
    found, weighted = rate_on_new_templates(material, options)
    low, high = found.interval
    return NewTemplates(found.rate, low, high, found.n_templates, weighted)


def _require_contrast(options: ReportOptions, parts: Sequence[Part]) -> None:
    if any(part.score == CONTRAST for part in parts) and not options.contrast:
        raise CalibrationError(
            "the artifact sets questions against a background, which refits need: give the "
            "collections that it was fitted with as --contrast, or leave --unseen-templates out",
            param="contrast",
        )
