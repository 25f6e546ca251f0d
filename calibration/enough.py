"""How many questions are enough for an alpha, in questions as they are collected.

A threshold needs conformal questions, which are a share of all: what `detector.conformal` says of
them is said here of whole questions files.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from scipy.special import bdtr

from calibration.questions import SHARES, Split
from detector import conformal
from detector.errors import TooFewQuestionsError
from detector.verdict import Guarantee

_MOST = 10**9
_ALPHA_STEPS = 10_000


def keeps(n_conformal: int, alpha: float, guarantee: Guarantee) -> bool:
    """Whether so many conformal questions give a threshold at this alpha."""
    try:
        conformal.rank(n_conformal, alpha, guarantee)
    except TooFewQuestionsError:
        return False
    return True


def conformal_needed(alpha: float, guarantee: Guarantee) -> int:
    """The fewest conformal questions that keep an alpha."""
    return bisect_left(range(_MOST), True, key=lambda n: keeps(n, alpha, guarantee))


def smallest_alpha(n_conformal: int, guarantee: Guarantee) -> float:
    """The smallest alpha kept, rounded up to four decimals; 1 if there is none."""
    steps = range(1, _ALPHA_STEPS)
    kept = bisect_left(
        steps, True, key=lambda step: keeps(n_conformal, step / _ALPHA_STEPS, guarantee)
    )
    return (kept + 1) / _ALPHA_STEPS


def to_collect(n: int, split: Split = "conformal") -> int:
    """How many questions to collect for `n` of them to be in a split, with the confidence of
    every bound, rounded up to two digits; each falls into it by its hash, so that their number
    is binomial.
    """
    if n <= 0:
        return 0
    at_most = 1 - conformal.CONFIDENCE
    # P(Binomial(m, share) < n), which falls as m grows.
    m = n + bisect_left(
        range(n, _MOST), True, key=lambda m: float(bdtr(n - 1, m, SHARES[split])) <= at_most
    )
    unit: int = 10 ** max(0, len(str(m)) - 2)
    return -(-m // unit) * unit


def outlook(splits: Mapping[str, Split], templates: Mapping[str, int], alpha: float) -> str:
    """What `fit` will be able to do with questions whose splits and templates these are, by their
    keys, in a line, beside `alpha`, which it takes unless told otherwise.
    """
    n_conformal = len({templates[key] for key in splits if splits[key] == "conformal"})
    kept = smallest_alpha(n_conformal, "marginal")
    n_templates = len(set(templates.values()))
    said, what = f"{len(splits)} distinct questions", "questions"
    if n_templates < len(splits):
        said, what = f"{said} of {n_templates} templates", "templates"
    said += (
        f"; if all are in scope, `fit` can keep alpha {kept:g} or more"
        if kept < 1
        else ("; if all are in scope, `fit` can keep no alpha")
    )
    if missing := max(0, conformal_needed(alpha, "marginal") - n_conformal):
        said += f": alpha {alpha:g} needs about {to_collect(missing)} {what} more"
    return said


def too_few(
    alpha: float, guarantee: Guarantee, n_questions: int, n_conformal: int
) -> TooFewQuestionsError:
    """What `fit` says of questions that are too few, in questions to collect."""
    missing = to_collect(conformal_needed(alpha, guarantee) - n_conformal)
    kept = smallest_alpha(n_conformal, guarantee)
    raising = f" or raise --alpha to {kept:g}, the smallest that these keep" if kept < 1 else ""
    return TooFewQuestionsError(
        f"alpha {alpha:g} cannot be kept ({guarantee}) with {n_questions} questions: collect "
        f"about {missing} more{raising}",
        param="alpha",
    )


def too_few_templates(
    alpha: float, guarantee: Guarantee, n_questions: int, n_templates: int, n_conformal: int
) -> TooFewQuestionsError:
    """The same of templates, of which each counts as one however many questions it has."""
    missing = to_collect(conformal_needed(alpha, guarantee) - n_conformal)
    kept = smallest_alpha(n_conformal, guarantee)
    raising = f", raise --alpha to {kept:g}, the smallest that these keep" if kept < 1 else ""
    return TooFewQuestionsError(
        f"alpha {alpha:g} cannot be kept ({guarantee}) for new questions: your {n_questions} "
        f"questions are of {n_templates} templates (one sentence with other numbers, names and "
        f"goods), of which {n_conformal} set the threshold; collect questions of about {missing} "
        f"more templates{raising}, or give --known-templates, which promises for questions of "
        "these very templates only",
        param="alpha",
    )


def too_few_of_group(
    alpha: float, guarantee: Guarantee, error: TooFewQuestionsError
) -> TooFewQuestionsError:
    """What `fit` says when all questions are enough, and those of a group are not."""
    needed = conformal_needed(alpha, guarantee)
    return TooFewQuestionsError(
        f"{error.message}; {needed} conformal questions take about {to_collect(needed)} "
        "questions of that group in all",
        param=error.param,
    )
