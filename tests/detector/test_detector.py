"""The detector: what it promises about false alarms, and what it says of one generation."""

import pytest
import torch
from torch import Tensor

from detector.clusters import Clusters
from detector.detector import Detector
from detector.errors import CalibrationError, TooFewQuestionsError
from detector.fit_split import FitSplit
from detector.fitted_look import MIN_TRAJECTORIES, Part, fit_look
from detector.gaussian import LayerGaussians
from detector.planes import Planes
from detector.scores import ORDERS, SCORES
from detector.trajectory import (
    END,
    PROMPT,
    PROMPT_MEAN,
    difference,
    in_order,
    look_name,
    parse_look,
    stage,
)

N_PLANES, D = 10, 8


def trajectories(n: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, N_PLANES, D, generator=generator).cumsum(1) + shift


EVERY_PART = [Part(PROMPT, name, order) for name, score in SCORES.items() for order in score.orders]


CLUSTERS = Clusters(
    torch.tensor(3), torch.zeros(D), torch.eye(2, D), torch.tensor([[0.0, 0.0], [2.0, 1.0]])
)
"""Two, in the plane of layer 3's first two coordinates."""


def planes(n: int, seed: int) -> Planes:
    return Planes.of(trajectories(n, seed))


def fitted(score: str = "mahalanobis", alpha: float = 0.05, n: int = 200) -> Detector:
    return Detector.fit(
        {PROMPT: planes(n, 0), 4: planes(n, 1)},
        {PROMPT: planes(n, 2), 4: planes(n, 3)},
        parts=[Part(PROMPT, score), Part(4, score)],
        background={PROMPT: planes(50, 4), 4: planes(50, 5)},
        alpha=alpha,
    )


def test_false_alarms_stay_at_alpha_over_all_looks() -> None:
    """With two looks a question, judged after each: one alpha for both together."""
    alpha, n, repeats = 0.1, 99, 60
    flagged = total = 0
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(repeat)
        looks = {
            look: torch.randn(2 * n + 100, N_PLANES, D, generator=generator) for look in (PROMPT, 4)
        }
        detector = Detector.fit(
            {look: Planes.of(rows[:n]) for look, rows in looks.items()},
            {look: Planes.of(rows[n : 2 * n]) for look, rows in looks.items()},
            alpha=alpha,
        )
        new = {look: rows[2 * n :] for look, rows in looks.items()}
        both = [
            detector.judge([*prompt, *later]).is_ood
            for prompt, later in zip(
                detector.score(PROMPT, new[PROMPT]), detector.score(4, new[4]), strict=True
            )
        ]
        offline = detector.maxima({look: Planes.of(rows) for look, rows in new.items()})
        assert both == (offline > detector.threshold).tolist()
        flagged += sum(map(bool, both))
        total += len(both)
    # Each repeat's rate is Beta(10, 90), standard deviation 0.030, plus binomial noise of
    # 100 draws, 0.030: over 60 repeats the mean has 0.042 / sqrt(60) = 0.0055; times 3.
    assert flagged / total == pytest.approx(alpha, abs=0.0165)


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("rank", [None, 3])
def test_scores_are_standardised_by_the_rows_held_out(rank: int | None, order: int) -> None:
    """0 is the median and 1 the 95 % point of every fifth row, by Gaussians of the others."""
    rows = trajectories(203, 0)
    parts = [Part(PROMPT, "mahalanobis", order)]
    (fitted_look,) = fit_look(PROMPT, parts, Planes.of(rows), rank)
    held_out = torch.arange(203) % 5 == 0

    def distances(fit: Tensor, new: Tensor) -> Tensor:
        gaussians = FitSplit(Planes.of(fit), rank).of_order(order)
        return gaussians.distances(difference(new, order))

    raw = distances(rows[~held_out], rows[held_out]).mean(1)
    assert len(raw) == 41
    # Of 41 sorted values, the 20th and the 38th from 0 lie at 20 / 40 and at 38 / 40.
    median, upper = raw.sort().values[[20, 38]]
    assert fitted_look.location == float(median)
    assert fitted_look.standardise(torch.stack([median, upper])).tolist() == [0, 1]
    assert torch.equal(fitted_look.score.distances(rows), distances(rows, rows))


def test_as_many_trajectories_as_a_look_needs() -> None:
    (_,) = fit_look(PROMPT, [Part(PROMPT)], planes(MIN_TRAJECTORIES, 0), rank=None)
    with pytest.raises(CalibrationError, match="has 9 trajectories and needs at least 10"):
        fit_look(PROMPT, [Part(PROMPT)], planes(MIN_TRAJECTORIES - 1, 0), rank=None)


def test_rank_caps_the_covariances() -> None:
    ranks = []
    for rank in (3, None):
        detector = Detector.fit({PROMPT: planes(99, 0)}, {PROMPT: planes(99, 1)}, rank=rank)
        gaussians = detector.looks[0].score.learned
        assert isinstance(gaussians, LayerGaussians)
        ranks.append(gaussians.rank)
    assert ranks == [3, D - 1]


@pytest.mark.parametrize("part", EVERY_PART, ids=str)
def test_parts_are_read_as_they_are_written(part: Part) -> None:
    assert Part.parse(str(part)) == part


def test_parts_that_are_none() -> None:
    assert Part.parse("prompt") == Part(PROMPT, "mahalanobis", 0)
    assert Part.parse("4::2") == Part(4, "mahalanobis", 2)
    for text in ("prompt:tv", "prompt:tv-paper:6", "prompt:tv-paper:-1", "prompt:tv-paper:x"):
        with pytest.raises(CalibrationError) as caught:
            Part.parse(text)
        assert caught.value.message == (
            f"{text!r} is no score at a look: write LOOK:SCORE or LOOK:SCORE:ORDER with a score "
            "of mahalanobis, mahalanobis-last, tv-paper, tv-reference, contrast, coe-r, coe-c and "
            "an order of 0 to 5"
        )
        assert caught.value.param == "guard"


def test_alpha_changes_without_the_model() -> None:
    detector = fitted()
    strict = detector.at(0.01, "marginal")
    assert strict.threshold > detector.threshold
    assert detector.at(0.05, "pac").threshold > detector.threshold
    with pytest.raises(TooFewQuestionsError, match="with 200 conformal questions"):
        detector.at(0.001, "marginal")
    with pytest.raises(TooFewQuestionsError, match=r"\(pac\) with 200 conformal questions"):
        detector.at(0.01, "pac")


def test_responses_that_end_before_a_look_are_left_out() -> None:
    short = trajectories(200, 1)
    short[::2] = torch.nan
    detector = Detector.fit(
        {PROMPT: planes(200, 0), 4: Planes.of(short)},
        {PROMPT: planes(200, 2), 4: Planes.of(short)},
    )
    assert torch.isfinite(detector.calibration.scores).all()
    alone = detector.maxima(
        {PROMPT: planes(3, 5), 4: Planes.of(torch.full((3, N_PLANES, D), torch.nan))}
    )
    expected = [look.score for (look,) in detector.score(PROMPT, trajectories(3, 5))]
    assert alone.tolist() == pytest.approx(expected)


def test_decision_is_on_the_largest_score_of_any_look() -> None:
    parts = [Part(PROMPT), Part(PROMPT, "coe-r"), Part(4, "tv-paper", 1), Part(4, "coe-c")]
    detector = Detector.fit(
        {PROMPT: planes(100, 0), 4: planes(100, 1)},
        {PROMPT: planes(100, 2), 4: planes(100, 3)},
        parts=parts,
    )
    new = {PROMPT: planes(30, 4), 4: planes(30, 5)}
    by_look = [detector.score(look, next(rows.batches())) for look, rows in new.items()]
    largest = [
        max(score.score for scores in row for score in scores) for row in zip(*by_look, strict=True)
    ]
    assert detector.maxima(new).tolist() == largest


def test_looks_are_kept_in_the_order_in_which_they_are_met() -> None:
    """Whatever the order asked for; scores at one look stay in theirs."""
    parts = [Part(END), Part(4, "coe-c"), Part(4), Part(PROMPT), Part(PROMPT_MEAN)]
    fit, conformal = (
        {part.look: planes(60, seed + 1 + part.look) for part in parts} for seed in (0, 10)
    )
    detector = Detector.fit(fit, conformal, parts=parts)
    assert [fitted.part for fitted in detector.looks] == [parts[n] for n in (4, 3, 1, 2, 0)]
    plain = Detector.fit(fit, conformal)
    every_look = [Part(look) for look in (PROMPT_MEAN, PROMPT, 4, END)]
    assert [fitted.part for fitted in plain.looks] == every_look


def test_fit_says_what_is_missing() -> None:
    few = {PROMPT: planes(9, 0)}
    with pytest.raises(CalibrationError) as caught:
        Detector.fit(few, few)
    assert caught.value.message == (
        "look 'prompt': the fit split has 9 trajectories and needs at least 10, collect more "
        "questions"
    )
    enough = {PROMPT: planes(40, 0)}
    with pytest.raises(TooFewQuestionsError, match="collect at least 19"):
        Detector.fit(enough, {PROMPT: planes(18, 1)})
    same = {PROMPT: Planes.of(torch.ones(40, N_PLANES, D))}
    with pytest.raises(CalibrationError) as caught:
        Detector.fit(same, same)
    assert caught.value.message == (
        "look 'prompt': the score 'mahalanobis' is the same for all questions held out of the fit "
        "split, collect questions that differ"
    )


def test_scores_at_a_look_share_what_they_measure() -> None:
    """All scores at once equal each alone, and a Gaussian is kept once."""
    parts = EVERY_PART
    background = {PROMPT: planes(50, 3)}
    fit, conformal = {PROMPT: planes(100, 0)}, {PROMPT: planes(100, 1)}
    together = Detector.fit(fit, conformal, parts=parts, background=background, rank=4)
    new = trajectories(3, 2)
    expected = []
    for part in parts:
        alone = Detector.fit(fit, conformal, parts=[part], background=background, rank=4)
        expected.append([looks[0] for looks in alone.score(PROMPT, new)])
    assert together.score(PROMPT, new) == [list(column) for column in zip(*expected, strict=True)]
    kept = {id(f.score.learned) for f in together.looks if f.score.learned is not None}
    # One a Ledoit-Wolf order, one diagonal, one of the last layer, one contrast.
    assert len(kept) == len(ORDERS) + 3


def test_a_look_s_score_says_what_it_is_of() -> None:
    parts = [Part(PROMPT, "tv-paper", 1), Part(PROMPT)]
    detector = Detector.fit({PROMPT: planes(60, 0)}, {PROMPT: planes(40, 1)}, parts=parts)
    new = trajectories(2, 2)
    for row, scores in enumerate(detector.score(PROMPT, new)):
        assert [score.name for score in scores] == ["tv-paper:1", "mahalanobis"]
        for fitted, score in zip(detector.looks, scores, strict=True):
            raw = fitted.score.score(new)
            assert (score.look, score.raw) == (PROMPT, float(raw[row]))
            assert score.score == float(fitted.standardise(raw)[row])
            assert score.distances == tuple(fitted.score.distances(new)[row].tolist())


def test_everything_that_scores_need_moves_to_a_device() -> None:
    """On the device that holds no numbers, tensors of two devices do not meet either."""
    parts = EVERY_PART
    fit, conformal = {PROMPT: planes(60, 0)}, {PROMPT: planes(40, 1)}
    clusters = {PROMPT: CLUSTERS}
    background = {PROMPT: planes(50, 3)}
    detector = Detector.fit(fit, conformal, parts=parts, background=background, clusters=clusters)
    moved = detector.to(torch.device("meta"))
    measured = list(moved._measured(PROMPT, trajectories(3, 2).to("meta")))
    assert len(measured) == len(parts)
    assert all(raw.is_meta and distances.is_meta for _, raw, distances in measured)

    def n_gaussians(detector: Detector) -> int:
        return len({id(fitted.score.learned) for fitted in detector.looks})

    assert n_gaussians(moved) == n_gaussians(detector)


def test_planes_are_read_a_layer_at_a_time() -> None:
    rows = trajectories(1100, 0)
    seen = []

    def read(plane: int, places: Tensor) -> Tensor:
        seen.append(len(places))
        return rows[places, plane]

    odd = Planes(read, torch.arange(1100), N_PLANES).select(torch.arange(1100) % 2 == 1)
    assert torch.equal(torch.stack(list(odd), 1), rows[1::2])
    assert torch.equal(torch.cat(list(odd.batches())), rows[1::2])
    assert torch.equal(odd.select(torch.tensor([3, 0]))[2], rows[[7, 1], 2])
    assert [len(batch) for batch in odd.select(torch.arange(0)).batches()] == [0]
    assert max(seen) == 550


def test_looks_have_one_name_each() -> None:
    for look in (PROMPT_MEAN, PROMPT, 2, 64, END):
        assert parse_look(look_name(look)) == look
    for name in ("0", "1", "-4", "first", ""):
        with pytest.raises(CalibrationError, match="is not a look"):
            parse_look(name)
    assert stage(PROMPT) == stage(PROMPT_MEAN) == "prompt"
    assert in_order([END, 8, PROMPT, 4, PROMPT_MEAN]) == [PROMPT_MEAN, PROMPT, 4, 8, END]
    assert stage(4) == stage(END) == "response"


def test_scores_are_standardised_within_clusters() -> None:
    """Where one kind of question scores higher than another, none of them pays for it."""
    alpha, n = 0.1, 4000
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(3 * n, N_PLANES, D, generator=generator)
    # The second kind lies apart on layer 3 and varies half as much again everywhere.
    second = torch.rand(3 * n, generator=generator) < 0.5
    rows[second] *= 1.5
    rows[:, 3, :2] += torch.where(second[:, None], torch.tensor([12.0, 9.0]), 0.0)
    clusters = Clusters(
        torch.tensor(3), torch.zeros(D), torch.eye(2, D), torch.tensor([[0.0, 0.0], [12.0, 9.0]])
    )
    fit, conformal = ({PROMPT: Planes.of(rows[i * n : (i + 1) * n])} for i in (0, 1))
    new, of_second = {PROMPT: Planes.of(rows[2 * n :])}, second[2 * n :]

    def rates(detector: Detector) -> list[float]:
        flagged = detector.maxima(new) > detector.threshold
        return [float(flagged[kind].double().mean()) for kind in (~of_second, of_second)]

    plain = Detector.fit(fit, conformal, alpha=alpha)
    even = Detector.fit(fit, conformal, alpha=alpha, clusters={PROMPT: clusters})
    assert torch.equal(even.looks[0].clusters_of(rows[2 * n :]), of_second.long())
    assert rates(plain)[0] == 0
    # Each kind has about 2,000 new questions (standard deviation 0.0067), a scale from 400
    # held-out ones, whose 95 % point moves the tenth above the threshold by 0.02, and a
    # threshold from 4,000 (0.0047): 0.065 is three of all.
    assert rates(even) == pytest.approx([alpha, alpha], abs=0.065)


def test_questions_of_one_template_count_as_one() -> None:
    """Also where Gaussians and scale are learned: copies of a question are held out with it."""
    names = [f"template {row // 4}" for row in range(80)]
    rows = trajectories(20, 0).repeat_interleave(4, 0)
    one = Detector.fit(
        {PROMPT: Planes.of(rows)},
        {PROMPT: planes(80, 1)},
        fit_templates=names,
        templates=names,
        alpha=0.1,
    )
    assert one.calibration.n_units == 20
    weights = one.calibration.weights
    assert weights is not None
    assert torch.equal(weights, torch.full((80,), 0.25, dtype=torch.float64))
    with pytest.raises(TooFewQuestionsError, match="questions of 20 templates"):
        one.at(0.04, "marginal")
    # floor(0.1 * 21) = 2 templates' worth: one for the new question, and four of the others.
    assert one.threshold == one.calibration.scores[-5]
