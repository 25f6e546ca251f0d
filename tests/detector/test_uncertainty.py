"""Semantic entropy, Coherent Persuasion and clusters, against what the papers' code does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detector.answers import clusters_of, number_of
from detector.uncertainty import (
    coherent_persuasion,
    discrete_semantic_entropy,
    kl_divergences,
    semantic_entropy,
)

SHIFT = 5.0
"""What the authors' code subtracts from each cluster's log-likelihood."""


def naive_entropy(average_log_likelihoods: Tensor, ids: Tensor) -> float:
    """`get_predictive_entropy_over_concepts` of DYNAMICQA's code, of one model and question."""
    aggregated = [
        torch.logsumexp(average_log_likelihoods[ids == each], dim=0) for each in torch.unique(ids)
    ]
    shifted = torch.tensor(aggregated, dtype=torch.float64) - SHIFT
    return float(-torch.sum(shifted, dim=0) / shifted.shape[0])


def naive_persuasion(
    p_with: list[list[float]], with_ids: list[int], p_without: list[list[float]], ids: list[int]
) -> float:
    """`get_persuasion_score` and what it calls, written out: the mean of `rel_entr` sums, of which
    infinities are masked.
    """

    def represent(probabilities: list[list[float]], members: list[int]) -> list[float]:
        n_tokens = len(probabilities[0])
        return [sum(probabilities[m][v] for m in members) / len(members) for v in range(n_tokens)]

    def rel_entr(x: float, y: float) -> float:
        if x > 0 and y > 0:
            return x * math.log(x / y)
        return 0.0 if x == 0 and y >= 0 else math.inf

    def members(cluster_ids: list[int]) -> list[list[int]]:
        return [[n for n, each in enumerate(cluster_ids) if each == c] for c in set(cluster_ids)]

    scores = []
    for one in members(with_ids):
        for other in members(ids):
            p, q = represent(p_with, one), represent(p_without, other)
            terms = [rel_entr(x, y) for x, y in zip(p, q, strict=True)]
            scores.append(sum(term for term in terms if math.isfinite(term)))
    return sum(scores) / len(scores)


def distributions(seed: int, n: int, size: int, *, zeros: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, size, generator=generator, dtype=torch.float64)
    if zeros:
        logits[torch.rand(n, size, generator=generator) < 0.3] = -torch.inf
        logits[:, 0] = 0.0
    return logits.softmax(1)


CLUSTERS = st.lists(st.integers(0, 4), min_size=1, max_size=10)


@given(CLUSTERS, st.integers(0, 2**31))
def test_semantic_entropy_is_the_authors_without_their_shift(ids: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lls = -4 * torch.rand(len(ids), generator=generator, dtype=torch.float64)
    expected = naive_entropy(lls, torch.tensor(ids)) - SHIFT
    assert semantic_entropy(lls.tolist(), ids) == pytest.approx(expected, abs=1e-6)


@given(CLUSTERS, CLUSTERS, st.integers(0, 2**31), st.booleans())
def test_persuasion_is_the_authors(
    with_ids: list[int], ids: list[int], seed: int, zeros: bool
) -> None:
    p_with = distributions(seed, len(with_ids), 17, zeros=zeros)
    p_without = distributions(seed + 1, len(ids), 17, zeros=zeros)
    expected = naive_persuasion(p_with.tolist(), with_ids, p_without.tolist(), ids)
    found = coherent_persuasion(p_with, with_ids, p_without, ids)
    assert found == pytest.approx(expected, abs=1e-6)


@given(CLUSTERS, st.integers(0, 2**31), st.randoms())
def test_neither_depends_on_order_or_names(ids: list[int], seed: int, draw: object) -> None:
    order = list(range(len(ids)))
    draw.shuffle(order)  # type: ignore[attr-defined]
    renamed = [10 - ids[row] for row in order]
    p, q = (distributions(seed + n, len(ids), 9, zeros=False) for n in range(2))
    lls = torch.linspace(-3, -0.1, len(ids)).tolist()
    assert semantic_entropy([lls[row] for row in order], renamed) == pytest.approx(
        semantic_entropy(lls, ids)
    )
    assert discrete_semantic_entropy(renamed) == pytest.approx(discrete_semantic_entropy(ids))
    assert coherent_persuasion(p[order], renamed, q[order], renamed) == pytest.approx(
        coherent_persuasion(p, ids, q, ids)
    )


@given(CLUSTERS)
def test_discrete_entropy_lies_between_agreement_and_none(ids: list[int]) -> None:
    found = discrete_semantic_entropy(ids)
    assert -1e-12 <= found <= math.log(len(set(ids))) + 1e-12
    assert (found < 1e-12) == (len(set(ids)) == 1)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_divergences_are_never_negative_without_zeros_and_0_of_the_same(
    n: int, m: int, seed: int
) -> None:
    p, q = distributions(seed, n, 12, zeros=False), distributions(seed + 1, m, 12, zeros=False)
    found = kl_divergences(p, q)
    assert found.shape == (n, m)
    assert bool((found >= -1e-12).all())
    assert kl_divergences(p, p).diagonal().abs().max() < 1e-12


def test_what_a_context_does_not_change_persuades_nobody() -> None:
    p = distributions(1, 4, 30, zeros=False)[:1].expand(4, 30)
    assert coherent_persuasion(p, [0, 0, 1, 1], p, [0, 1, 2, 3]) == pytest.approx(0, abs=1e-12)


def test_a_cluster_by_itself_is_its_likelihood() -> None:
    assert semantic_entropy([-0.5], [0]) == 0.5
    assert semantic_entropy([-1.0, -1.0], [3, 3]) == pytest.approx(1 - math.log(2))
    with pytest.raises(ValueError, match="no answer"):
        semantic_entropy([], [])


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("18", Fraction(18)),
        ("Tove has 30 - 12 = 18 eggs.", Fraction(18)),
        ("She pays $1,200.50!", Fraction(120050, 100)),
        ("0.5", Fraction(1, 2)),
        (".5 of them", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("-3", Fraction(-3)),
        ("\u22123 degrees", Fraction(-3)),
        ("7/0", None),
        ("2, 3", Fraction(3)),
        ("1,2345", Fraction(2345)),
        ("no number", None),
        ("", None),
        ("9" * 60, None),
        ("x2", None),
    ],
)
def test_the_last_number_counts_exactly(answer: str, number: Fraction | None) -> None:
    assert number_of(answer) == number


@given(
    st.fractions(min_value=0, max_value=10**6, max_denominator=1000), st.text("abc .", max_size=9)
)
def test_a_number_is_found_however_it_is_introduced(number: Fraction, words: str) -> None:
    assert number_of(f"{words} {number.numerator}/{number.denominator}") == number


@given(st.text(max_size=60))
def test_any_text_has_a_number_or_none(text: str) -> None:
    number_of(text)


def test_answers_are_together_by_number_and_else_by_words() -> None:
    answers = ["18", "It is 18.0", "9", "I  am not sure", "i am NOT sure", "no", "36/2"]
    assert clusters_of(answers) == (0, 0, 1, 2, 2, 3, 0)


def test_entailment_both_ways_puts_texts_together_and_numbers_not() -> None:
    asked: list[tuple[str, str]] = []

    def entails(pairs: Sequence[tuple[str, str]]) -> list[bool]:
        asked.extend(pairs)
        # "yes" says what "aye" says and back; "no" is said by all and says nothing of them.
        alike = ({"yes", "aye"}, {"no"})
        return [any({*pair} <= each for each in alike) or pair[1] == "no" for pair in pairs]

    assert clusters_of(["yes", "no", "aye", "4", "maybe"], entails) == (0, 1, 0, 2, 3)
    assert not any("4" in pair for pair in asked)
