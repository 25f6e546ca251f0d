"""What the guard sees: scores, p-values, drift, canaries, second opinions."""

from __future__ import annotations

from boards.overview import DRIFT
from boards.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Panel,
    bars,
    heatmap,
    lines,
    stat,
    steps,
)
from boards.queries import (
    CANARIES,
    FLAGGED,
    JUDGED,
    TRAFFIC,
    drift_alarm,
    flag_rate,
    quantile,
    rate,
    risen,
    series,
)

_ALL = 'le="+Inf"'
_MOVED = 'outcome=~"moved|failed"'


def panels() -> list[Panel]:
    return [*_tiles(), *_p_values(), *_scores(), *_drift(), *_canaries(), *_second_opinions()]


def _tiles() -> list[Panel]:
    return [
        stat(
            "Questions judged",
            "Over the shown time. Under a hundred, the panels below say little.",
            "short",
            (0, 0, 4, 4),
            f"judged | {risen('decisions_total', JUDGED)}",
            decimals=0,
        ),
        stat(
            "Flag rate",
            "Share of judged questions flagged or refused over the shown time.",
            "percentunit",
            (4, 0, 4, 4),
            f"flagged | {flag_rate('$__range')}",
            decimals=1,
        ),
        stat(
            "Median p-value",
            "0.5 or more while traffic is in scope. Well below: questions are less like the "
            "calibration's than they were.",
            "none",
            (8, 0, 4, 4),
            f"median | {quantile(0.5, 'p_value', over='$__range')}",
            colors=steps((None, RED), (0.2, ORANGE), (0.35, GREEN)),
            decimals=2,
        ),
        stat(
            "Drift of the traffic",
            "Told: users ask other things than the artifact was calibrated on.",
            "none",
            (12, 0, 4, 4),
            f"traffic | {drift_alarm(TRAFFIC)}",
            words=DRIFT,
            no_value="Not watched",
        ),
        stat(
            "Drift of the guard",
            "Told: known questions no longer score as they did: model, dtype, template or "
            "artifact has changed.",
            "none",
            (16, 0, 4, 4),
            f"canaries | {drift_alarm(CANARIES)}",
            words=DRIFT,
            no_value="No canaries",
        ),
        stat(
            "Canaries that moved",
            "Share of the known questions of the shown time that lay further from their recorded "
            "score than rounding takes them, or could not be judged. Up to a quarter is as usual.",
            "percentunit",
            (20, 0, 4, 4),
            f"moved | {risen('canaries_total', _MOVED)} / {risen('canaries_total')}",
            colors=steps((None, GREEN), (0.35, ORANGE), (0.6, RED)),
            no_value="No canaries",
            decimals=1,
        ),
    ]


def _p_values() -> list[Panel]:
    count = risen("p_value_count")
    deciles = []
    for tenth in range(10):
        lower, upper = tenth / 10, (tenth + 1) / 10
        inside = risen("p_value_bucket", f'le="{upper}"')
        if tenth:
            below = risen("p_value_bucket", f'le="{lower}"')
            inside = f"({inside} - {below})"
        deciles.append(f"{lower} to {upper} | {inside} / {count}")
    return [
        bars(
            "p-values of the shown time, by tenths",
            "Share of judged questions in each tenth. Were p-values uniform, each would be 10 %. "
            "A tall first bar is questions out of scope. Bars that rise to the right are caution: "
            "with several looks p-values are larger than they need be.",
            "percentunit",
            (0, 4, 12, 8),
            *deciles,
            telling="0.0 to 0.1",
            colors=steps((None, BLUE), (0.15, ORANGE), (0.3, RED)),
        ),
        heatmap(
            "p-values over time",
            "How many questions had which p-value. Even from top to bottom while traffic is in "
            "scope; a dark band at the bottom is questions out of scope.",
            "none",
            (12, 4, 12, 8),
            "p_value",
        ),
        lines(
            "Quartiles of the p-value",
            "Near 0.25, 0.5 and 0.75 while traffic is in scope, or above; falling together is "
            "drift.",
            "none",
            (0, 12, 12, 8),
            *(f"{q} | {quantile(q, 'p_value', over='1h')}" for q in (0.25, 0.5, 0.75)),
            most=1,
        ),
        lines(
            "Flag rate by the stage that decided",
            "Share of the last hour's judged questions that each stage flagged. Their sum is the "
            "flag rate, and alpha bounds it while every question is in scope.",
            "percentunit",
            (12, 12, 12, 8),
            f"{{{{stage}}}} | {rate('decisions_total', FLAGGED, by='stage', over='1h')} "
            f"/ scalar({rate('decisions_total', JUDGED, over='1h')})",
            f"alpha | max({series('alpha')})",
            stacked=True,
            colors={"alpha": GREY},
            dashed=["alpha"],
        ),
    ]


def _scores() -> list[Panel]:
    of_all = rate("score_bucket", _ALL, over="1h")
    share = f"{rate('score_bucket', by='le', over='1h')} / scalar({of_all})"
    return [
        lines(
            "Scores at or below the calibration's quantiles",
            "Share of the last hour's scores up to each bound; the bounds are the 5, 15, ... 95 "
            "and 99 % points of the artifact's calibration scores, and above those some for what "
            "is out of scope. In scope the lines lie level at those shares; falling is drift. "
            "Replicas with different artifacts have different bounds: choose one.",
            "percentunit",
            (0, 20, 12, 8),
            f"up to {{{{le}}}} | {share}",
            most=1,
        ),
        lines(
            "Score against the threshold",
            "Median and 95 % point of the last hour's scores: 0 and 1 when calibrated. What is "
            "above the threshold is flagged.",
            "none",
            (12, 20, 12, 8),
            f"median | {quantile(0.5, 'score', over='1h')}",
            f"95 % | {quantile(0.95, 'score', over='1h')}",
            f"threshold | max({series('threshold')})",
            colors={"threshold": RED},
            dashed=["threshold"],
            least=None,
        ),
        heatmap(
            "Scores over time",
            "How many questions had which score; the bounds of the rows are quantiles of the "
            "artifact's own scores.",
            "none",
            (0, 28, 12, 8),
            "score",
        ),
    ]


def _drift() -> list[Panel]:
    return [
        lines(
            "Evidence of drift",
            "Natural logarithm of what a bet against no drift has won, of each replica. Around 0 "
            "and below: none. At the line of TRAJGUARD_DRIFT_LEVEL drift is told, and stays told "
            "until it is reset.",
            "none",
            (12, 28, 12, 8),
            f"{{{{of}}}} at {{{{instance}}}} | {series('drift_log_evidence')}",
            f"drift is told | -ln(min({series('drift_level')}))",
            least=None,
            no_value="Not watched",
        ),
        lines(
            "Questions since the evidence was reset",
            "Of users and of canaries, all replicas. Falls to 0 after a reset, another artifact, "
            "or a restart without TRAJGUARD_STATE.",
            "short",
            (0, 36, 12, 8),
            f"{{{{of}}}} | sum by (of) ({series('drift_questions')})",
            no_value="Not watched",
        ),
        lines(
            "Rates that drift is bet against",
            "Drift is told when more than this share is flagged (traffic) or moves (canaries), and "
            "the excess is no chance.",
            "percentunit",
            (12, 36, 12, 8),
            f"{{{{of}}}} | max by (of) ({series('drift_bound')})",
            f"flag rate | {flag_rate('1h')}",
            no_value="Not watched",
        ),
    ]


def _canaries() -> list[Panel]:
    return [
        lines(
            "Canaries",
            "Known questions scored again a second: as recorded within what rounding does, further "
            "away, or not at all. Up to a quarter moves where nothing has changed.",
            "reqps",
            (0, 44, 12, 8),
            f"{{{{outcome}}}} | {rate('canaries_total', by='outcome')}",
            stacked=True,
            colors={"same": GREEN, "moved": ORANGE, "failed": RED},
            no_value="No canaries",
        ),
        lines(
            "How far canaries move",
            "Difference of a known question's score to those recorded. Rounding moves it a "
            "little; a changed model, template or dtype by more: then both lines rise.",
            "none",
            (12, 44, 12, 8),
            f"median | {quantile(0.5, 'canary_shift', over='1h')}",
            f"95 % | {quantile(0.95, 'canary_shift', over='1h')}",
            no_value="No canaries",
        ),
    ]


def _second_opinions() -> list[Panel]:
    waited = rate("second_opinion_seconds_bucket", by="le, name", over="1h")
    return [
        lines(
            "Second opinions",
            "What came of flagged questions that were asked about again, a second: freed, held, "
            "none to be had (failed: too many at once, too slow, an error), or a client that left.",
            "reqps",
            (0, 52, 8, 8),
            f"{{{{name}}}} {{{{outcome}}}} | {rate('second_opinions_total', by='name, outcome')}",
            stacked=True,
            no_value="None asked for",
        ),
        lines(
            "Time for a second opinion",
            "Median and 95 % point of how long the last hour's flagged questions waited.",
            "s",
            (8, 52, 8, 8),
            *(f"{{{{name}}}} {q} | histogram_quantile({q}, {waited})" for q in (0.5, 0.95)),
            no_value="None asked for",
        ),
        lines(
            "Tokens for second opinions",
            "Read and generated, a second, beside those of users.",
            "short",
            (16, 52, 8, 8),
            f"{{{{name}}}} | {rate('second_opinion_tokens_total', by='name')}",
            f"users | {rate('tokens_total')}",
            no_value="None asked for",
        ),
    ]
