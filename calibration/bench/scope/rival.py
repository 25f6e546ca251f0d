"""The rival: distance to the tenth-nearest in-scope question among embeddings of their texts.

Deep nearest neighbours (Sun et al., 2022, arXiv:2204.06507) over sentence embeddings, which is
what one builds in an afternoon without looking into the guarded model. It is given what the guard
is given: the fit split as reference, the conformal split for its threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from calibration.bench.scope.result import Design, Share, alpha_name
from calibration.bench.scope.sets import ScopeSet
from calibration.questions import Question, Split, read_questions
from calibration.templates import splits_and_templates
from calibration.variations import read_variations, vary
from detector import conformal
from detector.errors import TooFewQuestionsError

PLAIN = "MiniLM 10-NN"
VARIED = "MiniLM 10-NN, with variations"
NEIGHBOUR = 10
N_VARIATIONS = 2
_BATCH = 1024

Embed = Callable[[str, Sequence[str]], Tensor]


def asked(question: Question) -> str:
    """What the user said, all turns of it: an embedding of texts knows no conversation."""
    turns = [message["content"] for message in question.messages if message["role"] == "user"]
    return "\n\n".join(turns)


def neighbour_distances(points: Tensor, reference: Tensor, k: int = NEIGHBOUR) -> Tensor:
    """From each of `points` (n, d) to its k-th nearest of `reference` (m, d), all of length 1."""
    k = min(k, len(reference))
    distances = []
    for batch in points.split(_BATCH):
        nearest = (batch @ reference.T).topk(k, dim=1).values[:, -1]
        distances.append((2 - 2 * nearest.double()).clamp_min(0).sqrt())
    return torch.cat(distances)


def rivals(
    embed: Embed, fit: Sequence[Path], sets: Sequence[ScopeSet], alphas: Sequence[float]
) -> list[Design]:
    """The rival on questions as they are, and on rewritings of them too, as the guard is fitted.

    Raises QuestionsError as `read_questions` does, and TooFewQuestionsError when the questions
    of `fit` carry no alpha of these.
    """
    texts = split_texts(fit)
    points = {
        found.name: embed(found.name, [asked(question) for question in found.questions])
        for found in sets
    }
    holdout = embed("holdout", texts["holdout"])
    plain = {split: embed(split, texts[split]) for split in ("fit", "conformal")}
    varied = {
        split: torch.cat([found, embed(f"{split}-rewritten", _rewritten(texts[split]))])
        for split, found in plain.items()
    }
    return [
        _design(name, split["fit"], split["conformal"], holdout, points, alphas)
        for name, split in ((PLAIN, plain), (VARIED, varied))
    ]


def split_texts(paths: Sequence[Path]) -> dict[str, list[str]]:
    """The questions of all files by split, each once; those of one template go to one split."""
    found = {question.key: question for path in paths for question in read_questions(path)[0]}
    split_by_key, _ = splits_and_templates({key: each.text for key, each in found.items()})
    texts: dict[Split, list[str]] = {"fit": [], "conformal": [], "holdout": []}
    for key, question in found.items():
        texts[split_by_key[key]].append(asked(question))
    return {str(split): several for split, several in texts.items()}


def _rewritten(texts: Sequence[str]) -> list[str]:
    """Each text after variations that are not held out."""
    kinds = [kind for kind in read_variations().values() if not kind.held_out]
    return [vary(text, 0, kinds, N_VARIATIONS)[0] for text in texts]


def _design(
    name: str,
    reference: Tensor,
    calibration: Tensor,
    holdout: Tensor,
    points: dict[str, Tensor],
    alphas: Sequence[float],
) -> Design:
    calibrated = neighbour_distances(calibration, reference).sort().values
    cuts, refusal = {}, None
    for alpha in alphas:
        try:
            cuts[alpha_name(alpha)] = conformal.threshold(calibrated, alpha)
        except TooFewQuestionsError as error:
            refusal = error
    if refusal is not None and not cuts:
        raise refusal
    scores = {
        name: tuple(neighbour_distances(rows, reference).tolist()) for name, rows in points.items()
    }
    like = neighbour_distances(holdout, reference)
    return Design(
        name=name,
        n_conformal=len(calibrated),
        scores=scores,
        refused={
            alpha: {name: tuple(value > cut for value in row) for name, row in scores.items()}
            for alpha, cut in cuts.items()
        },
        holdout={
            alpha: Share(refused=int((like > cut).sum()), n=len(like))
            for alpha, cut in cuts.items()
            if len(like)
        },
    )
