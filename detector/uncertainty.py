"""Semantic entropy and Coherent Persuasion of several answers to one question.

DYNAMICQA (arXiv 2407.17023, eqs. 1 to 4), as its authors' code computes them
(github.com/copenlu/dynamicqa, `compute_confidence_measure.py` and `robust_persuasion.py`); semantic
entropy is Kuhn et al.'s (arXiv 2302.09664). Answers are clustered by what they come to
(`detector.answers`).

Higher is more uncertain, and more swayed by a context: both are scores of a question, higher is
more OOD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def semantic_entropy(log_likelihoods: Sequence[float], clusters: Sequence[int]) -> float:
    """How much the answers differ in what they come to, in nats (DYNAMICQA eq. 1; Kuhn et al.,
    section 4, their Monte Carlo estimate):

        SE(x) = - 1/|C| sum_{c in C} log p(c | x),  p(c | x) = sum_{s in c} p(s | x)

    `log_likelihoods` are each answer's, the mean over its tokens: DYNAMICQA reports that one, which
    Kuhn et al. call length-normalised. So p(c | x) is no probability and may be over 1. The
    authors' code also subtracts 5 from every log p(c | x), which adds 5 to every SE and is left out
    here. `clusters` names the cluster of each.
    """
    if not log_likelihoods:
        raise ValueError("no answer to take the entropy of")
    together: dict[int, list[float]] = {}
    for log_likelihood, cluster in zip(log_likelihoods, clusters, strict=True):
        together.setdefault(cluster, []).append(log_likelihood)
    return -math.fsum(map(_log_sum_exp, together.values())) / len(together)


def discrete_semantic_entropy(clusters: Sequence[int]) -> float:
    """The entropy of the shares of answers in each cluster, in nats, whatever their likelihoods
    (Farquhar et al., Nature 630, 2024): 0 where all come to the same, log K where no two do.
    """
    n = len(clusters)
    shares = [clusters.count(each) / n for each in dict.fromkeys(clusters)]
    return -math.fsum(share * math.log(share) for share in shares)


def coherent_persuasion(
    with_context: Tensor,
    clusters_with: Sequence[int],
    without: Tensor,
    clusters_without: Sequence[int],
) -> float:
    """How much a context sways what is answered (DYNAMICQA eqs. 2 to 4):

        CP(q, c) = 1 / (|C_cq| |C_q|) sum_{i in C_cq} sum_{j in C_q} KL(P_i || P_j)

    with P_i the mean over a cluster's answers of each one's distribution, which is the mean over
    its tokens of what the model said of the next one. Distributions (answers, vocabulary), those
    of the answers given with the context and without.
    """
    swayed, unswayed = means_of(with_context, clusters_with), means_of(without, clusters_without)
    return float(kl_divergences(swayed, unswayed).mean())


def means_of(distributions: Tensor, clusters: Sequence[int]) -> Tensor:
    """The mean distribution of each cluster, in the order in which they are met, in float64."""
    found = torch.tensor(list(clusters))
    rows = [distributions[found == each].double().mean(0) for each in dict.fromkeys(clusters)]
    return torch.stack(rows)


def kl_divergences(p: Tensor, q: Tensor) -> Tensor:
    """KL(p_i || q_j) of every pair of distributions (n, vocabulary) and (m, vocabulary), in nats.

    As in the authors' code, what is no number has no part in it: a token that p_i has and q_j has
    not, at which the divergence is infinite, is left out. Without its terms a sum may be negative,
    which no divergence is; with softmax over a model's logits a probability is 0 only where it
    underflows, and such a term is then as small in p_i.
    """
    pairs = [torch.where(q > 0, torch.special.xlogy(row, row / q), 0.0).sum(1) for row in p]
    return torch.stack(pairs)


def _log_sum_exp(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))
