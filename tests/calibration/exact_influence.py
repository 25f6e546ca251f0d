"""Influence by the exact Gauss-Newton matrix of a tiny model, and how EK-FAC ranks beside it.

`python -m tests.calibration.exact_influence` prints the rank correlations; given `kronfluence`,
also those of that library, which has to be installed.
"""

from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from calibration.influence.gradients import Kind, Layer, layers_of
from calibration.influence.pairs import Options, influences, total
from calibration.influence.texts import Counted, documents
from calibration.questions import Question, key_of
from detector.engine.model.text import Text
from tests.tiny import tiny_checkpoint

if TYPE_CHECKING:
    from detector.engine.model.checkpoint import Checkpoint

KINDS: tuple[Kind, ...] = ("mlp", "attention")
DRAWS = 16


def small_checkpoint() -> Checkpoint:
    """One block, in float64."""
    tiny = tiny_checkpoint(n_layers=1, hidden_size=8)
    tiny.model.double()
    return tiny


def sums(n: int) -> list[Question]:
    draw = random.Random(0)
    found: dict[str, Question] = {}
    while len(found) < n:
        a, b = draw.randint(2, 99), draw.randint(2, 99)
        asked = ({"role": "user", "content": f"{a}+{b}="},)
        found[key_of(asked)] = Question(asked, key_of(asked), float(a + b))
    return list(found.values())


def texts_of(checkpoint: Checkpoint, n: int) -> list[Counted]:
    return documents(Text(checkpoint.tokenizer, "{question}"), 0, [("sums", sums(n))])


def weights_of(layers: list[Layer]) -> list[Tensor]:
    return [layer.module.weight.requires_grad_() for layer in layers]


def weight_gradients(checkpoint: Checkpoint, layers: list[Layer], text: Counted) -> list[Tensor]:
    """Of the counted tokens' log-probability, by autograd on the weights themselves."""
    weights = weights_of(layers)
    logprobs = checkpoint.model(torch.tensor([text.tokens])).logits[0, :-1].log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(text.tokens[1:])[:, None])[text.first - 1 :]
    return list(torch.autograd.grad(chosen.sum(), weights))


def exact_matrix(checkpoint: Checkpoint, layers: list[Layer], texts: list[Counted]) -> Tensor:
    """The Gauss-Newton matrix of all layers, by the Jacobian of every logit: the mean over texts of
    sum_t J_t^T (diag(p_t) - p_t p_t^T) J_t.
    """
    weights = weights_of(layers)
    size = sum(weight.numel() for weight in weights)
    found = torch.zeros(size, size, dtype=torch.double)
    for text in texts:
        logits = checkpoint.model(torch.tensor([text.tokens])).logits[0, text.first - 1 : -1]
        roots = []
        for at in range(len(logits)):
            p = logits[at].detach().softmax(-1)
            # R^T R = diag(p) - p p^T.
            root = p.sqrt()[:, None] * (torch.eye(len(p), dtype=p.dtype) - p)
            jacobians = torch.autograd.grad(
                logits[at], weights, root, is_grads_batched=True, retain_graph=True
            )
            roots.append(torch.cat([jacobian.flatten(1) for jacobian in jacobians], dim=1))
        stacked = torch.cat(roots)
        found += stacked.T @ stacked / len(texts)
    return found


@dataclass(frozen=True)
class Exact:
    """Layers' exact matrix and the gradients by their weights, (texts, weights)."""

    matrix: Tensor
    sizes: list[int]
    read: Tensor
    asked: Tensor

    @classmethod
    def of(cls, checkpoint: Checkpoint, read: list[Counted], asked: list[Counted]) -> Exact:
        layers = layers_of(checkpoint.model)

        def stacked(texts: list[Counted]) -> Tensor:
            gradients = [weight_gradients(checkpoint, layers, text) for text in texts]
            return torch.stack([torch.cat([g.flatten() for g in each]) for each in gradients])

        return cls(
            exact_matrix(checkpoint, layers, read),
            [layer.module.weight.numel() for layer in layers],
            stacked(read),
            stacked(asked),
        )

    @property
    def layerwise(self) -> Tensor:
        """The matrix without what is between layers."""
        blocks: Tensor = torch.block_diag(
            *(
                self.matrix[stop - size : stop, stop - size : stop]
                for size, stop in zip(self.sizes, _stops(self.sizes), strict=True)
            )
        )
        return blocks

    def solve(self, matrix: Tensor, damping: float) -> Tensor:
        """Influence, (queries, documents): each layer is damped by its own mean eigenvalue."""
        diagonal = matrix.diagonal()
        means = [part.mean().expand(len(part)) for part in diagonal.split(self.sizes)]
        damped = matrix + damping * torch.cat(means).diag()
        solved: Tensor = torch.linalg.solve(damped, self.read.T)
        return self.asked @ solved


def _stops(sizes: list[int]) -> list[int]:
    stops: list[int] = torch.tensor(sizes).cumsum(0).tolist()
    return stops


def ekfac(
    checkpoint: Checkpoint, read: list[Counted], asked: list[Counted], damping: float
) -> Tensor:
    options = Options(damping=damping, draws=DRAWS)
    with tempfile.TemporaryDirectory() as folder:
        found = influences(checkpoint.model, read, asked, Path(folder), options, weights="tiny")
    return total(found, KINDS).pairs


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Over all pairs of a query and a document."""
    return float(spearmanr(one.flatten(), other.flatten()).statistic)


def by_kronfluence(
    checkpoint: Checkpoint, read: list[Counted], asked: list[Counted]
) -> Tensor:  # pragma: no cover (the library is no dependency)
    """Its influences, damped by a tenth of the mean eigenvalue."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Loss(Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Tensor:
            tokens, first = batch
            logprobs = model(tokens).logits[0, first[0] - 1 : -1].log_softmax(-1)
            drawn = torch.multinomial(logprobs.detach().exp(), 1)
            chosen = drawn if sample else tokens[0, first[0] :, None]
            loss: Tensor = -logprobs.gather(1, chosen).sum()
            return loss

        def compute_measurement(self, batch: Any, model: Any) -> Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return [layer.name for layer in layers_of(checkpoint.model)]

    def rows(texts: list[Counted]) -> Any:
        return [(torch.tensor(text.tokens), text.first) for text in texts]

    torch.manual_seed(0)
    task = Loss()
    double = torch.float64
    with tempfile.TemporaryDirectory() as folder:
        model = prepare_model(checkpoint.model, task)
        analyzer = Analyzer("a", model, task, output_dir=folder, disable_tqdm=True, cpu=True)
        analyzer.fit_all_factors(
            "factors",
            rows([text for text in read for _ in range(DRAWS)]),
            per_device_batch_size=1,
            factor_args=FactorArguments(
                activation_covariance_dtype=double,
                gradient_covariance_dtype=double,
                per_sample_gradient_dtype=double,
                lambda_dtype=double,
            ),
        )
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query_dataset=rows(asked),
            train_dataset=rows(read),
            per_device_query_batch_size=1,
            per_device_train_batch_size=1,
            score_args=ScoreArguments(
                damping_factor=None,
                per_sample_gradient_dtype=double,
                score_dtype=double,
                precondition_dtype=double,
            ),
        )
        scores: Tensor = analyzer.load_pairwise_scores("scores")["all_modules"]
    return scores.double()


def main(arguments: list[str]) -> None:
    small = small_checkpoint()
    texts = texts_of(small, 40)
    read, asked = texts[:32], texts[32:]
    exact = Exact.of(small, read, asked)
    for damping in (0.1, 1.0, 10.0):
        layerwise = exact.solve(exact.layerwise, damping)
        joint = exact.solve(exact.matrix, damping)
        found = ekfac(small, read, asked, damping)
        sys.stdout.write(
            f"damping {damping:g}: EK-FAC with layerwise {rank_correlation(found, layerwise):.3f}, "
            f"with joint {rank_correlation(found, joint):.3f}; "
            f"layerwise with joint {rank_correlation(layerwise, joint):.3f}\n"
        )
    if "kronfluence" in arguments:
        theirs = by_kronfluence(small, read, asked)
        ours = ekfac(small_checkpoint(), read, asked, 0.1)
        layerwise = exact.solve(exact.layerwise, 0.1)
        sys.stdout.write(
            f"kronfluence: with ours {rank_correlation(theirs, ours):.3f}, "
            f"with layerwise {rank_correlation(theirs, layerwise):.3f}\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
