"""What the page is told: why a question was judged as it was, and what else was judged of late."""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.judging import Judged
from app.loading import Loaded
from app.page.recent import Told
from app.wire.page import Band, Drift, Explanation, News, Row
from app.writing.explanation import verdict_explanation
from app.writing.verdict import told_verdict
from detector.canonical import as_judged
from detector.trajectory import look_name
from detector.verdict import BAND_LEVELS

N_ROWS = 50
"""Rows of the list of the last questions."""


def explanation(
    loaded: Loaded, event: Judged, question: str, *, detail: bool, texts: bool
) -> Explanation:
    """Of an event with a verdict and a decision, to whoever asked the question; `texts` are those
    of calibration questions.
    """
    assert event.verdict is not None
    assert event.decision is not None
    context = loaded.manifest.context
    is_rewritten = context.judged == "question"
    # After a reload the artifact is no longer the one that judged.
    is_known = detail and event.artifact == loaded.artifact_id
    why = None
    if is_known and event.verdict.is_ood:
        why = verdict_explanation(loaded, event.verdict, event.places, texts=texts)
    return Explanation(
        judged_text=as_judged(question, context.text) if is_rewritten else question,
        text=context.text if is_rewritten else "typed",
        verdict=told_verdict(
            event.verdict,
            event.decision,
            event.mode,
            event.artifact,
            context.text,
            event.opinion,
            detail=detail,
        ),
        levels=list(BAND_LEVELS),
        bands=_bands(loaded) if is_known else [],
        why=why,
    )


def _bands(loaded: Loaded) -> list[Band]:
    return [
        Band(
            look=look_name(fitted.look),
            name=fitted.part.score_name,
            layers=list(fitted.score.layers(loaded.manifest.n_layers)),
            quantiles=None if fitted.band is None else fitted.band.tolist(),
        )
        for fitted in loaded.detector.looks
    ]


def news(loaded: Loaded, told: Sequence[Told], n_judged: int, drift: Sequence[Drift]) -> News:
    """Of what has been judged; of a question without a p-value there is no point."""
    points = []
    for each in told:
        verdict = each.event.verdict
        if verdict is not None and verdict.p_value is not None:
            points.append((round(each.at, 3), verdict.p_value, bool(verdict.is_ood)))
    return News(
        alpha=loaded.detector.alpha,
        n_judged=n_judged,
        points=points,
        rows=[_row(each) for each in told[-N_ROWS:]],
        drift=list(drift),
    )


def _row(told: Told) -> Row:
    event, verdict = told.event, told.event.verdict
    score = None if verdict is None else verdict.score
    return Row(
        at=round(told.at, 3),
        request_id=event.request_id,
        decision=event.decision,
        error=event.error,
        mode=event.mode,
        stage=None if verdict is None else verdict.stage,
        score=score if score is None or math.isfinite(score) else None,
        p_value=None if verdict is None else verdict.p_value,
    )
