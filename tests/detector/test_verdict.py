"""Verdicts: what is flagged, at which look, and by which group's threshold."""

import math

import pytest
import torch
from torch import Tensor

from detector.conformal import Calibration
from detector.detector import Detector
from detector.errors import TooFewQuestionsError
from detector.groups import Grouping
from detector.planes import Planes
from detector.trajectory import PROMPT
from detector.verdict import LookScore, Verdict
from tests.detector.test_detector import N_PLANES, D, fitted, planes, trajectories


def test_a_score_at_the_threshold_is_not_flagged() -> None:
    """Flagged is what lies above it, which is p <= alpha; groups have their own threshold."""
    detector = Detector.fit(
        {PROMPT: planes(200, 0)},
        {PROMPT: planes(200, 2)},
        groups=["even", "odd"] * 100,
        alpha=0.05,
    )
    for group in (None, "even", "odd"):
        threshold = detector.threshold_of(group)
        for score, flagged in (
            (threshold, False),
            (math.nextafter(threshold, -math.inf), False),
            (math.nextafter(threshold, math.inf), True),
        ):
            verdict = detector.judge([LookScore(PROMPT, "mahalanobis", 0.0, score, ())], group)
            assert verdict.is_ood is flagged
            assert verdict.p_value is not None
            assert (verdict.p_value <= detector.alpha) is flagged
    assert len({detector.threshold_of(group) for group in (None, "even", "odd")}) == 3


def test_stage_is_that_of_the_first_flag_or_of_the_last_look() -> None:
    detector = fitted()

    def at(look: int, score: float) -> LookScore:
        return LookScore(look, "mahalanobis", 0.0, score, ())

    high = detector.threshold + 1
    for looks, stage_of_it in (
        ([at(PROMPT, high), at(4, high + 1)], "prompt"),
        ([at(PROMPT, 0.0), at(4, high)], "response"),
        ([at(PROMPT, 0.0), at(4, -1.0)], "response"),
        ([at(PROMPT, 0.0)], "prompt"),
    ):
        verdict = detector.judge(looks)
        assert verdict.stage == stage_of_it
        assert verdict.score == max(look.score for look in looks)


def test_verdict_says_when_and_why() -> None:
    detector = fitted()
    (inside,) = detector.score(PROMPT, trajectories(1, 50) * 0.1)
    (outside,) = detector.score(4, trajectories(1, 51, shift=40.0))
    early = detector.judge(inside)
    assert (early.is_ood, early.stage) == (False, "prompt")
    assert early.p_value is not None
    assert early.p_value > 0.05
    late = detector.judge([*inside, *outside])
    assert (late.is_ood, late.stage) == (True, "response")
    assert late.score == outside[0].score
    assert late.p_value == pytest.approx(1 / 201)
    assert (late.threshold, late.alpha) == (detector.threshold, detector.alpha)
    assert len(outside[0].distances) == N_PLANES


def test_excluded_looks_do_not_count() -> None:
    detector = fitted()
    high = LookScore(4, "mahalanobis", 1e9, 1e9, (), excluded="the sampling was not calibrated")
    low = LookScore(PROMPT, "mahalanobis", 0.0, -5.0, ())
    verdict = detector.judge([low, high])
    assert (verdict.is_ood, verdict.score, verdict.stage) == (False, -5.0, "prompt")
    nothing = detector.judge([high])
    assert nothing == Verdict(None, None, None, detector.threshold, 0.05, None, (high,))


def test_a_group_whose_name_is_empty_is_a_group_of_its_own() -> None:
    """A question without the field is of no group, whatever the field may hold."""
    scores = torch.arange(100.0)
    groups = {"": Calibration(scores[:50])}
    detector = Detector((), Calibration(scores), 0.1, "marginal", groups)
    assert detector.threshold_of(None) == detector.threshold == scores[-10]
    assert detector.threshold_of("") == scores[45]
    assert detector.threshold_of("not calibrated") == detector.threshold


def test_groups_keep_alpha_each_on_its_own() -> None:
    """One group's scores are spread twice as wide: a threshold for all would flag it alone."""
    generator = torch.Generator().manual_seed(0)

    def draw(n: int, scale: float) -> Tensor:
        return scale * torch.randn(n, N_PLANES, D, generator=generator)

    n, alpha = 199, 0.1
    fit, both = (Planes.of(torch.cat([draw(n, 1.0), draw(n, 2.0)])) for _ in range(2))
    detector = Detector.fit(
        {PROMPT: fit},
        {PROMPT: both},
        groups=["narrow"] * n + ["wide"] * n,
        alpha=alpha,
    )
    rates = {}
    for name, scale in (("narrow", 1.0), ("wide", 2.0)):
        (*scored,) = detector.score(PROMPT, draw(1000, scale))
        verdicts = [detector.judge(looks, name) for looks in scored]
        assert all(verdict.group == name for verdict in verdicts)
        assert verdicts[0].threshold == detector.threshold_of(name)
        rates[name] = sum(bool(verdict.is_ood) for verdict in verdicts) / 1000
    # Beta(20, 180) has a standard deviation of 0.021, 1,000 draws add 0.0095: 0.023, times 4.
    assert rates == pytest.approx({"narrow": alpha, "wide": alpha}, abs=0.092)
    together = [detector.judge(looks).is_ood for looks in detector.score(PROMPT, draw(1000, 1.0))]
    assert sum(map(bool, together)) < 10
    excluded = LookScore(PROMPT, "mahalanobis", 9.0, 9.0, (), excluded="not calibrated")
    nothing = Verdict(
        None, None, None, detector.threshold_of("wide"), alpha, None, (excluded,), "wide"
    )
    assert detector.judge([excluded], "wide") == nothing
    unknown = detector.judge(detector.score(PROMPT, draw(1, 1.0))[0], "no such group")
    assert (unknown.group, unknown.threshold) == (None, detector.threshold)
    with pytest.raises(TooFewQuestionsError, match="199 conformal questions of group 'narrow'"):
        detector.at(0.004, "marginal")
    assert detector.at(0.01, "marginal").threshold_of("narrow") > detector.threshold_of("narrow")
    with pytest.raises(TooFewQuestionsError, match=r"\(pac\) with 199 .* of group 'narrow'"):
        detector.at(0.01, "pac")


def test_groups_by_length_and_by_field() -> None:
    by_length = Grouping(by="length", edges=(3, 5))
    names = [by_length.group_of("w " * n, {}) for n in (2, 3, 4, 5, 9)]
    assert names == [
        "under 3 words",
        "3 to 4 words",
        "3 to 4 words",
        "5 words and over",
        "5 words and over",
    ]
    by_route = Grouping(by="route")
    assert by_route.group_of("any", {"route": "a"}) == "a"
    assert by_route.group_of("any", {}) is None


def test_groups_hold_the_scores_of_their_rows() -> None:
    """Also of one that no text names: its rows count for all questions alone."""
    names = [None, "a", "b", "a"] * 50
    detector = Detector.fit(
        {PROMPT: planes(200, 0)}, {PROMPT: planes(200, 2)}, groups=names, alpha=0.1
    )
    maxima = detector.maxima({PROMPT: planes(200, 2)})
    assert torch.equal(detector.calibration.scores, maxima.sort().values)
    assert list(detector.groups) == ["a", "b"]
    for name, calibration in detector.groups.items():
        keep = torch.tensor([group == name for group in names])
        assert torch.equal(calibration.scores, maxima[keep].sort().values)
