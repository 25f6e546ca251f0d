"""Numbers that are NaN or infinite: of none does anything come that could be read as in scope."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from detector.clusters import Clusters
from detector.conformal import Calibration
from detector.detector import Detector
from detector.errors import CalibrationError
from detector.fitted_look import Part, fit_look
from detector.planes import Planes
from detector.trajectory import END, PROMPT
from detector.verdict import LookScore
from tests.detector.test_detector import CLUSTERS, N_PLANES, D, fitted, planes, trajectories

NOT_FINITE = [math.nan, math.inf, -math.inf]


def at(look: int, score: float) -> LookScore:
    return LookScore(look, "mahalanobis", score, score, ())


@pytest.mark.parametrize("score", NOT_FINITE)
def test_a_score_that_is_not_finite_is_not_in_scope(score: float) -> None:
    detector = fitted()
    for looks, stage in (
        ([at(PROMPT, score)], "prompt"),
        ([at(PROMPT, score), at(4, -1.0)], "prompt"),
        ([at(PROMPT, -1.0), at(4, score)], "response"),
        ([at(PROMPT, score), at(4, score)], "response"),
    ):
        verdict = detector.judge(looks)
        assert (verdict.is_ood, verdict.score, verdict.p_value) == (None, None, None)
        assert verdict.stage == stage
        assert len(verdict.failures) == sum(not math.isfinite(look.score) for look in looks)
    flagged = detector.judge([at(PROMPT, score), at(4, detector.threshold + 1)])
    assert (flagged.is_ood, flagged.stage, flagged.failures) == (True, "response", ())
    assert flagged.score == detector.threshold + 1
    excluded = detector.judge([replace(at(PROMPT, score), excluded="so"), at(4, -1.0)])
    assert (excluded.is_ood, excluded.failures) == (False, ())


def test_a_score_says_why_it_is_none() -> None:
    assert at(PROMPT, 1.0).failure is None
    assert at(PROMPT, math.nan).failure == "the score is NaN or infinite"
    raised = replace(at(PROMPT, math.nan), error="ValueError")
    assert raised.failure == "judging raised ValueError"


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_trajectory_without_a_finite_score_cannot_be_calibrated_with(value: float) -> None:
    """In one coordinate, or so large that its score overflows; all of them NaN is another thing:
    a response that ended before the look.
    """
    detector = fitted()
    rows = {PROMPT: trajectories(5, 7), 4: trajectories(5, 8)}
    rows[4][2] = torch.nan
    finite = detector.maxima({look: Planes.of(states) for look, states in rows.items()})
    assert finite.isfinite().all()
    for poisoned in (value, 1e38):
        rows[4][3, 2, 1] = poisoned
        with pytest.raises(CalibrationError, match="'mahalanobis' at look '4' of a question is"):
            detector.maxima({look: Planes.of(states) for look, states in rows.items()})


def test_a_trajectory_without_a_finite_score_cannot_be_fitted_to() -> None:
    """One that stands still has no length for chain of embedding to be relative to."""
    rows = trajectories(60, 0)
    rows[5] = rows[5, :1]
    with pytest.raises(CalibrationError, match="look 'prompt': the score 'coe-r' of a question is"):
        fit_look(PROMPT, [Part(PROMPT, "coe-r")], Planes.of(rows), None)


def test_a_response_that_ends_before_every_look_is_below_all() -> None:
    part = [Part(4)]
    detector = Detector.fit({4: planes(60, 0)}, {4: planes(60, 1)}, parts=part, alpha=0.1)
    rows = trajectories(3, 2)
    rows[1] = torch.nan
    assert detector.maxima({4: Planes.of(rows)}).isneginf().tolist() == [False, True, False]


def test_a_threshold_that_is_not_finite_is_refused() -> None:
    rows = trajectories(60, 1)
    rows[5:] = torch.nan
    with pytest.raises(CalibrationError, match=r"at alpha 0\.2 the threshold is not finite"):
        Detector.fit({4: planes(60, 0)}, {4: Planes.of(rows)}, parts=[Part(4)], alpha=0.2)
    scarce = Detector.fit({4: planes(60, 0)}, {4: Planes.of(rows)}, parts=[Part(4)])
    assert math.isfinite(scarce.threshold)
    grouped = replace(scarce, groups={"a": Calibration(torch.full((60,), -torch.inf))})
    with pytest.raises(CalibrationError, match="not finite"):
        grouped.at(0.05, "marginal")


@pytest.mark.parametrize("scores", [[math.nan], [0.0, math.nan], [1.0, 0.0], [0.0, math.nan, 1.0]])
def test_calibration_scores_are_sorted_numbers(scores: list[float]) -> None:
    with pytest.raises(CalibrationError, match="NaN or not sorted"):
        Calibration(torch.tensor(scores))


@pytest.mark.parametrize("field", ["mean", "basis", "centres"])
def test_a_trajectory_is_in_no_cluster_of_nan(field: str) -> None:
    """To argmin NaN is the least of all, so it would be near."""
    rows = trajectories(4, 0)
    assert (CLUSTERS.assign(rows) >= 0).all()
    broken: Clusters = replace(CLUSTERS, **{field: getattr(CLUSTERS, field) * torch.nan})
    assert (broken.assign(rows) == -1).all()
    one = torch.zeros(2, dtype=torch.float64)
    look = replace(fitted().looks[0], location=one, scale=one + 1, clusters=broken)
    assert look.standardise(torch.zeros(4), look.clusters_of(rows)).isnan().all()
    assert look.standardise(torch.zeros(4), torch.tensor([0, 1, -1, 0])).isnan().tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_scores_at_the_end_are_no_exception() -> None:
    parts = [Part(PROMPT), Part(END)]
    looks = {PROMPT: planes(60, 0), END: planes(60, 1)}
    detector = Detector.fit(looks, looks, parts=parts, alpha=0.1)
    (scores,) = detector.score(END, torch.full((1, N_PLANES, D), 1e30))
    assert scores[0].failure
    assert detector.judge([at(PROMPT, 0.0), *scores]).is_ood is None
