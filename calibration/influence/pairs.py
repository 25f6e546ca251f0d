"""Influence of every document on every query, some blocks of the model at a time; resumes.

Of one document z on the answer y that was served to x (arXiv 2411.12580 and, for the matrix,
arXiv 2308.03296):

    I(z, y) = grad log p(y | x)^T (G + lambda 1)^-1 grad log p(z)

the change of log p(y | x), to first order, for a little more weight on z in training. It is the sum
over the layers, which EK-FAC takes apart. A query's influence on itself, I(y, y), and a document's
are the squared lengths that make cosines of these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from calibration.influence.ekfac import DAMPING, fit_factors
from calibration.influence.gradients import Batch, Gradients, Kind, Layer, layers_of
from calibration.influence.texts import Counted, batches, digest
from detector.atomic import write_atomically
from detector.errors import CalibrationError

_RECORD = "influence.txt"


@dataclass(frozen=True)
class Options:
    """`at_once` blocks are taken together: memory for as many times all queries' gradients, and
    time for the model's runs again for each such group. `tokens` run in one batch.
    """

    damping: float = DAMPING
    draws: int = 1
    seed: int = 0
    at_once: int = 2
    tokens: int = 1024


@dataclass(frozen=True)
class Influence:
    """Summed over layers: `pairs` (queries, documents), each query's influence on itself and each
    document's; and `nats`, minus the log-probability of each query's answer.
    """

    pairs: Tensor
    queries: Tensor
    documents: Tensor
    nats: Tensor

    def on_cpu(self) -> Influence:
        return Influence(**{name: value.cpu().double() for name, value in vars(self).items()})


def influences(
    model: nn.Module,
    documents: Sequence[Counted],
    queries: Sequence[Counted],
    folder: Path,
    options: Options,
    *,
    weights: str,
) -> dict[tuple[int, Kind], Influence]:
    """By block and kind of layer. What `folder` has of an earlier run is not run again; `weights`
    is the digest of the model's.

    Raises CalibrationError where it holds another run's.
    """
    kept = {name: getattr(options, name) for name in ("damping", "draws", "seed")}
    described = digest(list(documents), list(queries), kept, weights)
    record = folder / _RECORD
    if record.exists() and record.read_text() != described:
        raise CalibrationError(
            f"{str(folder)!r} holds influence of other texts, another model or other options: "
            "choose another --out or remove it",
            param="out",
        )
    write_atomically(record, described.encode())
    found: dict[tuple[int, Kind], Influence] = {}
    for path in sorted(folder.glob("blocks-*.safetensors")):
        found |= _read(path)
    layers = layers_of(model)
    left = sorted({layer.block for layer in layers} - {block for block, _ in found})
    groups = [
        left[start : start + options.at_once] for start in range(0, len(left), options.at_once)
    ]
    n_runs = 3 * len(documents) + len(queries)
    with tqdm(total=n_runs * len(groups), unit="text", file=sys.stderr) as progress:
        for group in groups:
            progress.set_description(f"blocks {group[0]} to {group[-1]}")
            those = [layer for layer in layers if layer.block in group]
            made = _of_layers(model, those, documents, queries, options, progress.update)
            path = folder / f"blocks-{group[0]:03}.safetensors"
            write_atomically(path, save(_stored(made)))
            found |= made
    return {place: found[place].on_cpu() for place in sorted(found)}


def total(found: dict[tuple[int, Kind], Influence], kinds: Sequence[Kind]) -> Influence:
    """Over all blocks, of layers of these kinds."""
    chosen = [each for (_, kind), each in found.items() if kind in kinds]
    return Influence(
        pairs=torch.stack([each.pairs for each in chosen]).sum(0),
        queries=torch.stack([each.queries for each in chosen]).sum(0),
        documents=torch.stack([each.documents for each in chosen]).sum(0),
        nats=chosen[0].nats,
    )


def _of_layers(
    model: nn.Module,
    layers: Sequence[Layer],
    documents: Sequence[Counted],
    queries: Sequence[Counted],
    options: Options,
    ran: Callable[[int], object] = lambda _: None,
) -> dict[tuple[int, Kind], Influence]:
    """All at once; `ran` is told of each few texts that have been run."""
    gradients = Gradients(model, layers)
    device = gradients.device

    def batched(texts: Sequence[Counted]) -> list[tuple[list[int], Batch]]:
        return [
            (places, Batch.of([texts[place] for place in places], device))
            for places in batches(texts, options.tokens)
        ]

    of_documents = batched(documents)
    factors = fit_factors(
        gradients,
        [batch for _, batch in of_documents],
        damping=options.damping,
        draws=options.draws,
        seed=options.seed,
        ran=ran,
    )
    n = len(queries), len(documents)
    dtype = next(iter(factors.values())).damped.dtype
    nats = torch.empty(n[0], dtype=dtype)
    solved: dict[Layer, Tensor] = {}
    sums = {
        (layer.block, layer.kind): Influence(
            pairs=torch.zeros(n, dtype=dtype, device=device),
            queries=torch.zeros(n[0], dtype=dtype, device=device),
            documents=torch.zeros(n[1], dtype=dtype, device=device),
            nats=nats,
        )
        for layer in layers
    }
    places: list[int] = []

    def solve(layer: Layer, inputs: Tensor, outputs: Tensor) -> None:
        found = factors[layer].gradients(inputs, outputs)
        if layer not in solved:
            solved[layer] = found.new_empty(n[0], *found.shape[1:])
        solved[layer][places] = found / factors[layer].damped
        own = (found * solved[layer][places]).sum((1, 2))
        sums[layer.block, layer.kind].queries[places] += own

    def pair(layer: Layer, inputs: Tensor, outputs: Tensor) -> None:
        found = factors[layer].gradients(inputs, outputs)
        summed = sums[layer.block, layer.kind]
        summed.pairs[:, places] += solved[layer].flatten(1) @ found.flatten(1).mT
        summed.documents[places] += (found.square() / factors[layer].damped).sum((1, 2))

    for places, batch in batched(queries):
        nats[places] = -gradients.of_texts(batch, solve).cpu()
        ran(len(places))
    for places, batch in of_documents:
        gradients.of_texts(batch, pair)
        ran(len(places))
    return sums


def _stored(found: dict[tuple[int, Kind], Influence]) -> dict[str, Tensor]:
    return {
        f"{block} {kind} {name}": value.cpu().contiguous().clone()
        for (block, kind), influence in found.items()
        for name, value in vars(influence).items()
    }


def _read(path: Path) -> dict[tuple[int, Kind], Influence]:
    stored = load_file(path)
    kinds: tuple[Kind, ...] = ("attention", "mlp")
    places = {(int(key.split()[0]), kind) for key in stored for kind in kinds if kind in key}
    names = [field.name for field in fields(Influence)]
    return {
        (block, kind): Influence(**{name: stored[f"{block} {kind} {name}"] for name in names})
        for block, kind in places
    }
