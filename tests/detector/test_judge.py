"""The judge: looks add up, each request by its own judgement, and nothing is kept for ever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from detector.backend import Ask
from detector.conformal import Calibration
from detector.detector import Detector
from detector.fitted_look import Part
from detector.judge import Exclusions, Judge, Judgement
from detector.planes import Planes
from detector.trajectory import END, PROMPT, PROMPT_MEAN, Look

LOOKS = (PROMPT, 4, END)
FAR = 100.0
BOTH = frozenset({"prompt", "response"})


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The mean Mahalanobis distance at every look, of Gaussians around 0."""
    draw = torch.Generator().manual_seed(0)

    def random(n: int) -> dict[Look, Planes]:
        return {look: Planes.of(torch.randn(n, 3, 4, generator=draw)) for look in LOOKS}

    parts = [Part(look) for look in LOOKS]
    return Detector.fit(random(60), random(60), parts=parts, rank=2, alpha=0.1)


def rows(*distances: float) -> torch.Tensor:
    """Trajectories that lie as far out as asked."""
    return torch.stack([torch.full((3, 4), distance) for distance in distances])


def test_looks_add_up_to_one_verdict(detector: Detector) -> None:
    judge, ask, judgement = Judge(detector), Ask((1,)), Judgement(refuses=BOTH)
    judge.watch(ask, judgement)
    assert judge.looks == set(LOOKS)
    assert judge.observe(PROMPT, [ask], rows(0.1)) == [False]
    at_prompt = judgement.verdict
    assert judge.observe(4, [ask], rows(FAR)) == [True]
    assert at_prompt is not None
    assert judgement.verdict is not None
    assert (at_prompt.is_ood, judgement.verdict.is_ood) == (False, True)
    assert (at_prompt.stage, judgement.verdict.stage) == ("prompt", "response")
    expected = [
        detector.score(look, rows(distance))[0][0] for look, distance in ((PROMPT, 0.1), (4, FAR))
    ]
    assert judgement.verdict == detector.judge(expected)
    assert list(judgement.verdict.looks) == expected


def test_each_of_a_batch_is_judged_for_itself(detector: Detector) -> None:
    judge = Judge(detector)
    asks = [Ask((1,)) for _ in range(3)]
    judgements = [Judgement(refuses=refuses) for refuses in (BOTH, frozenset(), BOTH)]
    for ask, judgement in zip(asks, judgements, strict=True):
        judge.watch(ask, judgement)
    assert judge.observe(PROMPT, asks, rows(FAR, FAR, 0.1)) == [True, False, False]
    found = [judgement.verdict and judgement.verdict.is_ood for judgement in judgements]
    assert found == [True, True, False]


def test_what_is_judged_of_a_prompt_holds_for_all_that_share_it(detector: Detector) -> None:
    judge, first = Judge(detector), Ask((1,))
    other = Ask((1,), first=first)
    mine, theirs = Judgement(), Judgement()
    judge.watch(first, mine)
    judge.watch(other, theirs)
    judge.observe(PROMPT, [first], rows(FAR))
    assert theirs.verdict == mine.verdict is not None
    judge.observe(4, [other], rows(0.1))
    assert (len(mine.looks), len(theirs.looks)) == (1, 2)
    judge.observe(4, [first], rows(FAR))
    assert (len(mine.looks), len(theirs.looks)) == (2, 2)


def test_each_request_has_a_trajectory(detector: Detector) -> None:
    judge = Judge(detector)
    with pytest.raises(ValueError, match="shorter"):
        judge.observe(PROMPT, [Ask((1,)), Ask((1,))], rows(0.1))


@pytest.mark.parametrize(
    ("exclusions", "excluded"),
    [
        (Exclusions(), {}),
        (Exclusions(prompt="p"), {PROMPT: "p", PROMPT_MEAN: "p"}),
        (Exclusions(response="r"), {4: "r", END: "r"}),
        (Exclusions(end="e"), {END: "e"}),
        (Exclusions(response="r", end="e"), {4: "r", END: "r"}),
    ],
)
def test_exclusions_are_of_their_looks_alone(
    exclusions: Exclusions, excluded: dict[Look, str]
) -> None:
    for look in (PROMPT, PROMPT_MEAN, 4, END):
        assert exclusions.at(look) == excluded.get(look)


def test_a_look_that_is_excluded_ends_nothing(detector: Detector) -> None:
    judge, ask = Judge(detector), Ask((1,))
    judgement = Judgement(exclusions=Exclusions(prompt="not calibrated"), refuses=BOTH)
    judge.watch(ask, judgement)
    assert judge.observe(PROMPT, [ask], rows(FAR)) == [False]
    assert judgement.verdict is not None
    assert judgement.verdict.is_ood is None
    assert [look.excluded for look in judgement.verdict.looks] == ["not calibrated"]


def test_groups_have_their_own_thresholds(detector: Detector) -> None:
    class Grouped:
        neighbours = None

        def score(self, look: Look, trajectories: torch.Tensor) -> Any:
            return detector.score(look, trajectories)

        def judge(self, looks: Sequence[Any], group: str | None = None) -> Any:
            asked.append(group)
            return detector.judge(looks)

    asked: list[str | None] = []
    judge = Judge(cast("Detector", Grouped()))
    ask = Ask((1,))
    judge.watch(ask, Judgement(group="short"))
    judge.observe(PROMPT, [ask], rows(0.1))
    assert asked == ["short"]


def test_a_request_that_nobody_watches_is_judged_and_forgotten(detector: Detector) -> None:
    judge = Judge(detector)
    asks = [Ask((1,)) for _ in range(3)]
    gc.disable()
    try:
        assert judge.observe(PROMPT, asks, rows(FAR, 0.1, 0.1)) == [False] * 3
        assert judge.observe(4, asks, rows(0.1, 0.1, 0.1)) == [False] * 3
        watched = Ask((1,), first=asks[0])
        judge.watch(watched, Judgement())
        gone = [weakref.ref(ask) for ask in (*asks, watched)]
        del asks, watched
        assert [ref() for ref in gone] == [None] * 4
        assert len(judge._judgements) == len(judge._others) == 0
    finally:
        gc.enable()


def test_requests_of_a_batch_are_each_judged_by_their_own_detector(detector: Detector) -> None:
    """As after another artifact was put in force while some were under way."""
    lenient = replace(detector, calibration=Calibration(detector.calibration.scores + 1e9))
    asks = [Ask((1,)) for _ in range(4)]
    own = [detector, lenient, detector, lenient]
    judgements = [Judgement(refuses=BOTH, detector=each) for each in own]
    judge = Judge(detector)
    for ask, judgement in zip(asks, judgements, strict=True):
        judge.watch(ask, judgement)
    states = rows(FAR, FAR / 2, 0.1, 0.2)
    assert judge.observe(PROMPT, asks, states) == [True, False, False, False]
    scored = detector.score(PROMPT, states)
    for judgement, each, scores in zip(judgements, own, scored, strict=True):
        assert judgement.verdict is not None
        assert judgement.verdict.threshold == each.threshold
        assert judgement.verdict.score == pytest.approx(scores[0].score)


def test_a_look_that_a_detector_does_not_take_says_nothing(detector: Detector) -> None:
    judge, ask, judgement = Judge(detector), Ask((1,)), Judgement(refuses=BOTH)
    judge.watch(ask, judgement)
    assert judge.observe(7, [ask], rows(FAR)) == [False]
    assert (judgement.looks, judgement.verdict) == ([], None)


@pytest.mark.parametrize("closed", [set(), {"prompt"}, {"response"}, {"prompt", "response"}])
def test_failures_end_a_request_at_the_stages_that_say_so(
    detector: Detector, closed: set[str]
) -> None:
    for look, stage in ((PROMPT, "prompt"), (4, "response")):
        judge, asks = Judge(detector), [Ask((1,)), Ask((1,))]
        judgements = [Judgement(fails_closed=frozenset(closed)) for _ in asks]
        for ask, judgement in zip(asks, judgements, strict=True):
            judge.watch(ask, judgement)
        assert judge.observe(look, asks, rows(1e30, 0.1)) == [stage in closed, False]
        failed, sound = (judgement.verdict for judgement in judgements)
        assert failed is not None
        assert sound is not None
        assert (failed.is_ood, sound.is_ood) == (None, False)


def test_what_scoring_raises_is_a_failure_of_its_row(
    detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "my-private-words"

    class Raising:
        neighbours = None
        looks = detector.looks
        alpha = detector.alpha

        def score(self, look: Look, trajectories: torch.Tensor) -> Any:
            if bool((trajectories == 13.0).any()):
                raise ArithmeticError(secret)
            return detector.score(look, trajectories)

        def judge(self, looks: Sequence[Any], group: str | None = None) -> Any:
            return detector.judge(looks, group)

    judge = Judge(cast("Detector", Raising()))
    asks = [Ask((1,)) for _ in range(3)]
    judgements = [Judgement(fails_closed=frozenset({"prompt"})) for _ in asks]
    for ask, judgement in zip(asks, judgements, strict=True):
        judge.watch(ask, judgement)
    assert judge.observe(PROMPT, asks, rows(0.1, 13.0, 0.2)) == [False, True, False]
    failed = judgements[1].verdict
    assert failed is not None
    (look,) = failed.failures
    assert (look.name, look.failure) == ("mahalanobis", "judging raised ArithmeticError")
    assert "scoring failed at look prompt: ArithmeticError" in caplog.text
    assert secret not in caplog.text


def test_what_judging_raises_is_a_failure_too(detector: Detector) -> None:
    class Raising:
        neighbours = None
        looks = detector.looks
        alpha = detector.alpha
        score = detector.score

        def judge(self, looks: Sequence[Any], group: str | None = None) -> Any:
            raise ZeroDivisionError

    judge, ask = Judge(cast("Detector", Raising())), Ask((1,))
    excluded = Exclusions(prompt="not calibrated")
    judgement = Judgement(exclusions=excluded, fails_closed=frozenset({"prompt"}))
    judge.watch(ask, judgement)
    assert judge.observe(PROMPT, [ask], rows(0.1)) == [True]
    assert judgement.verdict is not None
    assert judgement.verdict.is_ood is None
    assert [look.failure for look in judgement.verdict.failures] == [
        "judging raised ZeroDivisionError"
    ]
