"""Questions in all against conformal ones: by the formulas, and by drawing."""

from __future__ import annotations

import random

import pytest

from calibration.enough import (
    conformal_needed,
    keeps,
    outlook,
    smallest_alpha,
    to_collect,
    too_few,
    too_few_of_group,
    too_few_templates,
)
from calibration.questions import Split
from calibration.suggestion import suggestion
from detector.errors import TooFewQuestionsError
from detector.verdict import Guarantee

GUARANTEES: tuple[Guarantee, ...] = ("marginal", "pac")


def test_as_many_as_the_formulas_say() -> None:
    # 1 / alpha - 1; and the first n at which 0.95^n <= 0.05.
    assert [conformal_needed(alpha, "marginal") for alpha in (0.5, 0.05, 0.01)] == [1, 19, 99]
    assert conformal_needed(0.05, "pac") == 59


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("n", [1, 18, 19, 90, 1284])
def test_the_smallest_alpha_is_kept_and_no_smaller_one(n: int, guarantee: Guarantee) -> None:
    alpha = smallest_alpha(n, guarantee)
    assert keeps(n, alpha, guarantee)
    assert not keeps(n, alpha - 1e-4, guarantee)
    assert smallest_alpha(0, guarantee) == 1


def test_so_many_questions_have_enough_conformal_ones() -> None:
    draw = random.Random(0)
    n = to_collect(19)
    assert n == 85
    enough = sum(sum(draw.random() < 0.3 for _ in range(n)) >= 19 for _ in range(4000))
    # 95.3 % exactly; a binomial standard deviation of 0.34 %, times 4.
    assert enough / 4000 == pytest.approx(0.953, abs=0.0135)
    assert to_collect(0) == to_collect(-3) == 0
    # 377, and a larger one for the smaller share.
    assert to_collect(99) == 380
    assert to_collect(99, "holdout") > to_collect(99)


def splits_of(n_fit: int, n_conformal: int) -> dict[str, Split]:
    fit: dict[str, Split] = {f"f{k}": "fit" for k in range(n_fit)}
    return fit | {f"c{k}": "conformal" for k in range(n_conformal)}


def test_what_collected_questions_can_keep() -> None:
    def said(n_fit: int, n_conformal: int, size: int = 1) -> str:
        splits = splits_of(n_fit, n_conformal)
        templates = {key: place // size for place, key in enumerate(splits)}
        return outlook(splits, templates, 0.05)

    assert said(5, 0) == (
        "5 distinct questions; if all are in scope, `fit` can keep no alpha: alpha 0.05 needs "
        "about 85 questions more"
    )
    assert said(0, 18) == (
        "18 distinct questions; if all are in scope, `fit` can keep alpha 0.0527 or more: alpha "
        "0.05 needs about 9 questions more"
    )
    assert said(1, 19) == (
        "20 distinct questions; if all are in scope, `fit` can keep alpha 0.05 or more"
    )
    assert said(200, 120, size=40) == (
        "320 distinct questions of 8 templates; if all are in scope, `fit` can keep alpha 0.25 or "
        "more: alpha 0.05 needs about 73 templates more"
    )


def test_too_few_are_told_in_questions() -> None:
    assert too_few(0.05, "marginal", 60, 18).param == "alpha"
    assert too_few(0.05, "marginal", 60, 18).message == (
        "alpha 0.05 cannot be kept (marginal) with 60 questions: collect about 9 more or raise "
        "--alpha to 0.0527, the smallest that these keep"
    )
    assert too_few(0.05, "pac", 2, 0).message == (
        "alpha 0.05 cannot be kept (pac) with 2 questions: collect about 240 more"
    )
    error = TooFewQuestionsError("of group 'a'", param="alpha")
    group = too_few_of_group(0.05, "marginal", error)
    assert group.message == (
        "of group 'a'; 19 conformal questions take about 85 questions of that group in all"
    )
    assert group.param == "alpha"


def test_too_few_templates_are_told_in_templates() -> None:
    assert too_few_templates(0.05, "marginal", 400, 10, 3).message == (
        "alpha 0.05 cannot be kept (marginal) for new questions: your 400 questions are of 10 "
        "templates (one sentence with other numbers, names and goods), of which 3 set the "
        "threshold; collect questions of about 73 more templates, raise --alpha to 0.25, the "
        "smallest that these keep, or give --known-templates, which promises for questions of "
        "these very templates only"
    )
    assert "--alpha" not in too_few_templates(0.05, "marginal", 40, 2, 0).message


def test_what_to_collect_next() -> None:
    # 8 of 160 is the first rate of 0.05 whose interval ends below 0.1.
    assert suggestion(0.05, 160, {}) is None
    assert suggestion(0.05, 160, {"group 'a'": 160}) is None
    assert suggestion(0.05, 159, {}) == (
        "collect next: about 14 more questions, for 159 holdout questions cannot tell a "
        "false-alarm rate of 0.05 from one of 0.1"
    )
    assert suggestion(0.05, 500, {"group 'a'": 150, "group 'b'": 140, "group 'c'": 210}) == (
        "collect next: about 140 more questions of group 'b', for the 140 holdout questions of "
        "group 'b' cannot tell a false-alarm rate of 0.05 from one of 0.1"
    )
    assert suggestion(0.01, 799, {}) is not None
    assert suggestion(0.99, 2, {}) is None
