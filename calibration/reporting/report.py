"""Report: what an artifact does on held-out in-distribution questions and on OOD files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.confounds import length_correlation
from calibration.enough import keeps
from calibration.fit import CONTRAST, FitOptions, Material, gather
from calibration.new_templates import rate_on_new_templates
from calibration.pooling import Pools, made_of
from calibration.reporting import false_alarms, recall
from calibration.reporting.explained import explained
from calibration.reporting.false_alarms import FalseAlarms
from calibration.reporting.judged import Judged, judge, read_alike
from calibration.reporting.power import power
from calibration.reporting.result import AlphaRow, GroupRow, NewTemplates, Report
from calibration.reporting.scoring import groups_of, scores_of, thresholds
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
    """What an artifact does on the holdout split of the in-distribution collections and on all OOD
    questions. Raises CalibrationError as `judge` does, and for what else the options need.
    """
    return reported(judge(artifact, folders, options.ood), folders, options)


def reported(judged: Judged, folders: Sequence[Path], options: ReportOptions) -> Report:
    """The report on what was judged already."""
    artifact, pools = judged.artifact, judged.pools
    detector, grouping = artifact.detector, artifact.manifest.grouping
    pool, groups = judged.inside.pool, judged.inside.groups
    flagged = judged.inside.flagged(detector)
    fitted_texts = pools["fit"].texts
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
        read_alike(artifact, options.contrast)
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
            score: length_correlation(found, pool.texts)
            for score, found in judged.inside.by_part.items()
        },
        ood=tuple(
            row
            for name, found in judged.outside.items()
            for row in recall.ood_rows(detector, judged.inside, fitted_texts, found, name)
        ),
        alphas=_alphas(judged),
        unseen_variations=_unseen_variations(artifact, options.unseen_variations, pools),
        new_templates=new_templates,
        power=powered,
        explained=explained(judged),
    )


def _alphas(judged: Judged) -> tuple[AlphaRow, ...]:
    """Everything is scored once: only thresholds differ."""
    rows = []
    for alpha in ALPHAS:
        at = detector_at(judged, alpha)
        if at is None:
            rows.append(AlphaRow(alpha, None, dict.fromkeys(judged.outside)))
            continue
        inside = FalseAlarms.of("all", judged.inside.flagged(at), judged.inside.pool.units)
        recalled: dict[str, float | None] = {
            name: float(scored.flagged(at).mean()) for name, scored in judged.outside.items()
        }
        rows.append(AlphaRow(alpha, inside, recalled))
    return tuple(rows)


def detector_at(judged: Judged, alpha: float) -> Detector | None:
    """The detector at another alpha, None where calibration cannot carry it."""
    detector = judged.artifact.detector
    if not keeps(judged.pools["conformal"].n_units, alpha, detector.guarantee):
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
    pool, _ = made_of(read_alike(artifact, folders), pools, "holdout")
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
