"""Confounds: how much of a score's success the question's surface alone would explain."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from detector.gaussian import LayerGaussians

Scores = npt.NDArray[np.float64]

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
MATCHED_WORDS = 3
"""Matched questions differ by at most this many words."""


def n_words(question: str) -> int:
    return len(question.split())


def n_numbers(question: str) -> int:
    return len(_NUMBER.findall(question))


def surface_counts(question: str) -> list[float]:
    """Eight counts that no model is needed for: words, characters, numbers, digits,
    sentences, capitals, mathematical signs, other punctuation.
    """
    return [
        float(count)
        for count in (
            n_words(question),
            len(question),
            n_numbers(question),
            sum(c.isdigit() for c in question),
            len(re.findall(r"[.?!](?:\s|$)", question)),
            sum(c.isupper() for c in question),
            sum(c in "$\\^_{}=+*/<>|" for c in question),
            sum(c in ",;:'\"()-%" for c in question),
        )
    ]


def surface_scores(fit: Sequence[str], questions: Sequence[str]) -> Scores:
    """Mahalanobis distance of questions' surface counts from those of `fit`.

    A count that they all share has a whole number's own variance, 1/12, beside the others.
    """

    def counts(texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([surface_counts(text) for text in texts])

    fitted, counted = counts(fit), counts(questions)
    scale = fitted.std(0)
    varies = scale > 0
    shared = (counted - fitted[0])[:, ~varies].square().sum(1) * 12
    scores: Scores = shared.double().numpy()
    if bool(varies.any()):
        scale = scale[varies]
        gaussian = LayerGaussians.fit([fitted[:, varies] / scale])
        distances = gaussian.distances((counted[:, varies] / scale)[:, None])[:, 0]
        scores = scores + distances.double().numpy()
    return scores


def matched_auroc(
    inside: Scores, outside: Scores, inside_texts: Sequence[str], outside_texts: Sequence[str]
) -> tuple[float | None, int]:
    """AUROC over pairs of equal number count and within MATCHED_WORDS words, and their number.

    None without such a pair.
    """

    def surface(texts: Sequence[str]) -> tuple[Scores, Scores]:
        return (
            np.array([n_numbers(text) for text in texts], dtype=np.float64),
            np.array([n_words(text) for text in texts], dtype=np.float64),
        )

    (inside_numbers, inside_words), (outside_numbers, outside_words) = (
        surface(inside_texts),
        surface(outside_texts),
    )
    matched = (inside_numbers[:, None] == outside_numbers[None]) & (
        np.abs(inside_words[:, None] - outside_words[None]) <= MATCHED_WORDS
    )
    n_pairs = int(matched.sum())
    if not n_pairs:
        return None, 0
    wins = (outside[None] > inside[:, None]) + 0.5 * (outside[None] == inside[:, None])
    return float(wins[matched].mean()), n_pairs


def length_correlation(scores: Scores, texts: Sequence[str]) -> float | None:
    """Spearman's correlation of scores with the questions' number of words; None where either
    does not vary.
    """
    lengths = [n_words(text) for text in texts]
    if len(set(lengths)) < 2 or len(set(scores.tolist())) < 2:
        return None
    return float(spearmanr(scores, lengths).statistic)
