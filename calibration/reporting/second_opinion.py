"""What second opinions give back and what they lose, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from calibration.reporting.scoring import auroc
from calibration.second_opinion import Found, Opined, scores_of
from detector.conformal import Calibration, proportion_interval
from detector.opinion_record import OPINION_SCORES, OpinionRecord, OpinionScore, OpinionScores

ALPHAS = (0.05, 0.1, 0.2, 0.5, 0.8)
_RESAMPLES = 2000
_TRAFFIC = 0.05
"""The share of flagged questions that costs in all traffic are told at."""


def n_held(record: OpinionRecord, scores: Sequence[float], name: OpinionScore, beta: float) -> int:
    """How many of these scores a second opinion holds at `beta`, by the record's calibration."""
    known = torch.tensor(record.calibration.of(name), dtype=torch.float64)
    calibration = Calibration(known)
    return sum(calibration.p_value(score) <= beta for score in scores)


def joint_rates(record: OpinionRecord) -> str:
    """How many questions in scope are refused by both stages, of those held out."""
    n, flagged = record.n_holdout, len(record.holdout)
    lines = [
        f"second opinions ({record.population} questions in scope at alpha {record.alpha:g}, "
        f"{len(record.calibration)} of them; {record.asking.n_answers} answers of at most "
        f"{record.asking.max_tokens} tokens): of {n} others in scope stage one flags {flagged}, "
        f"{_rate(flagged, n)}"
    ]
    for name in OPINION_SCORES:
        for beta in ALPHAS:
            held = n_held(record, record.holdout.of(name), name, beta)
            lines.append(
                f"  {name} at {beta:g}: both refuse {held} of {n}, {_rate(held, n)}; "
                f"{flagged - held} of {flagged} freed"
            )
    return "\n".join(lines)


def tables(record: OpinionRecord, found: Found) -> str:
    """The same beside what is lost of OOD questions, as Markdown."""
    inside = [*found.calibration, *found.holdout] if record.population == "flagged" else []
    inside = inside or list(found.holdout)
    lines = [
        f"In scope: {found.n_calibration} questions to calibrate by and {found.n_holdout} held "
        f"out, of which stage one flags {len(found.holdout)} "
        f"({_rate(len(found.holdout), found.n_holdout)}). OOD: {found.n_ood} questions, of which "
        f"it flags {found.n_ood_flagged}; {len(found.ood)} of these were asked.",
        "",
        "| second opinion | AUROC among flagged | second alpha | false refusals freed | refused in "
        "scope by both | OOD kept |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    ood = scores_of(found.ood)
    for name in OPINION_SCORES:
        told = auroc_of([getattr(each, name) for each in inside], ood.of(name))
        for beta in ALPHAS:
            lines.append(_row(record, found, ood, name, beta, told))
            told = ""
    discrete = auroc_of([each.discrete for each in inside], [each.discrete for each in found.ood])
    lines += ["", f"Discrete semantic entropy: AUROC {discrete}.", "", costs(inside + found.ood)]
    return "\n".join(lines)


def _row(
    record: OpinionRecord,
    found: Found,
    ood: OpinionScores,
    name: OpinionScore,
    beta: float,
    told: str,
) -> str:
    flagged, n_ood = len(found.holdout), len(ood)
    held = n_held(record, record.holdout.of(name), name, beta)
    kept = n_held(record, ood.of(name), name, beta)
    cells = [
        name if told else "",
        told,
        f"{beta:g}",
        f"{flagged - held} of {flagged}, {_rate(flagged - held, flagged)}",
        f"{held} of {found.n_holdout}, {_rate(held, found.n_holdout)}",
        f"{kept} of {n_ood}, {_rate(kept, n_ood)}",
    ]
    return f"| {' | '.join(cells)} |"


def costs(opined: Sequence[Opined]) -> str:
    """What a flagged question costs, answers with and without the example together."""
    if not opined:
        return "No question was asked."
    tokens = torch.tensor([float(each.tokens) for each in opined])
    seconds = torch.tensor([each.seconds for each in opined])
    return (
        f"A flagged question takes {float(tokens.mean()):.0f} tokens and "
        f"{1000 * float(seconds.mean()):.0f} ms (median {1000 * float(seconds.median()):.0f} ms) "
        f"for both scores, one after another; at {_TRAFFIC:.0%} flags that is "
        f"{_TRAFFIC * float(tokens.mean()):.1f} tokens and "
        f"{1000 * _TRAFFIC * float(seconds.mean()):.1f} ms a question of all traffic."
    )


def auroc_of(inside: Sequence[float], outside: Sequence[float]) -> str:
    """With its bootstrap 95 % interval; a dash where one side is empty."""
    if not inside or not outside:
        return "-"
    known, other = np.array(inside), np.array(outside)
    generator = np.random.default_rng(0)
    again = [
        auroc(generator.choice(known, len(known)), generator.choice(other, len(other)))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(again, [0.025, 0.975])
    return f"{auroc(known, other):.2f} ({low:.2f} to {high:.2f})"


def _rate(count: int, n: int) -> str:
    if not n:
        return "-"
    low, high = proportion_interval(count, n)
    return f"{count / n:.1%} ({low:.1%} to {high:.1%})"
