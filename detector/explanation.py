"""Why a question was judged as it was: the layers that speak against it, the calibration questions
that it lies nearest to, and the kind of out-of-scope questions.

Worked out of a verdict and of where its looks lie among neighbours, when somebody asks. What is
decided stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detector.detector import Detector
from detector.fitted_look import FittedLook
from detector.manifest import Manifest
from detector.neighbour_names import NeighbourNames
from detector.neighbours import LookNeighbours
from detector.scores import mean_distance, total, volatility
from detector.trajectory import Look
from detector.verdict import LookScore, Verdict

N_NEIGHBOURS = 5

NO_LOOK = "no look has a score"
NO_NEIGHBOURS = (
    "the artifact keeps no calibration questions: `trajguard neighbours` adds them, and "
    "`trajguard fit` keeps some"
)
NOT_KEPT = "where the question lies was not kept: only what is flagged, or asked about, has it"

_MIDDLE = 2
_HIGH = -1


@dataclass(frozen=True)
class LayerShare:
    """What one layer adds to the standardised score: over 0 it speaks against the question.

    `measured` is the layer's part before that, `usual` the median of questions in scope, `beyond`
    whether it lies above their central 95 %; None of both where no band says.
    """

    layer: int
    share: float
    measured: float
    usual: float | None = None
    beyond: bool | None = None


@dataclass(frozen=True)
class NearQuestion:
    """A calibration question. `kind` is its own if it has one."""

    id: str
    file: str
    kind: str | None
    text: str | None
    distance: float


@dataclass(frozen=True)
class NearKind:
    """A kind of out-of-scope questions, and how far the middle of its `n_questions` is."""

    name: str
    n_questions: int
    distance: float


@dataclass(frozen=True)
class Explanation:
    """Of the look that decided: the one whose score is the highest of those that count.

    The `shares` of the layers add up to the look's score, the largest first; there are none where
    a score is no sum over layers. `usual` is how far a calibration question is from the nearest
    other one: the median, and what 97.5 % stay within. `note` says what is missing, and why.
    """

    look: Look | None
    score_name: str | None
    score: float | None
    shares: tuple[LayerShare, ...] = ()
    neighbours: tuple[NearQuestion, ...] = ()
    usual: tuple[float, float] | None = None
    kind: NearKind | None = None
    note: str | None = None


def explain(
    detector: Detector,
    manifest: Manifest,
    verdict: Verdict,
    places: Mapping[Look, Tensor],
    n_neighbours: int = N_NEIGHBOURS,
) -> Explanation:
    """Of a verdict of this detector's looks, at any of its alphas, and where they lie (k,)."""
    look = deciding_look(verdict)
    if look is None:
        return Explanation(None, None, None, note=NO_LOOK)
    fitted = next(
        each
        for each in detector.looks
        if (each.look, each.part.score_name) == (look.look, look.name)
    )
    found = shares(fitted, look, manifest.n_layers)
    said = Explanation(look.look, look.name, look.score, shares=found)
    names = manifest.neighbours
    kept = None if detector.neighbours is None else detector.neighbours.looks.get(look.look)
    if kept is None or names is None:
        return replace(said, note=NO_NEIGHBOURS)
    place = places.get(look.look)
    if place is None:
        return replace(said, note=NOT_KEPT)
    return replace(
        said,
        neighbours=_nearest(kept, names, place, n_neighbours),
        usual=(float(kept.usual[_MIDDLE]), float(kept.usual[_HIGH])),
        kind=_nearest_kind(kept, names, place),
    )


def deciding_look(verdict: Verdict) -> LookScore | None:
    """That of the highest score, of the looks that count if any does."""
    scored = [look for look in verdict.looks if not look.failure]
    counted = [look for look in scored if look.excluded is None]
    return max(counted or scored, key=lambda look: look.score, default=None)


def shares(fitted: FittedLook, look: LookScore, n_layers: int) -> tuple[LayerShare, ...]:
    """What each layer adds to a look's standardised score, the largest first.

    The score is (sum of terms - location) / scale. Each layer is charged for what its term has over
    that of the median of questions in scope; what is left of the location, which is of no single
    layer, all of them bear alike.
    """
    terms_of = _TERMS.get(fitted.score.definition.summarise)
    distances = torch.tensor(look.distances, dtype=torch.float64)
    if terms_of is None or not len(distances):
        return ()
    terms = terms_of(distances)
    # A step between layers stands for the later one, and the band is of none.
    layers = fitted.score.layers(n_layers)[len(distances) - len(terms) :]
    band = fitted.band if len(terms) == len(distances) else None
    middle = torch.zeros_like(terms) if band is None else terms_of(band[_MIDDLE].double().cpu())
    scale = float(fitted.scale[_cluster(fitted, look)])
    left = float((terms - middle).sum()) - look.score * scale
    found = ((terms - middle - left / len(terms)) / scale).tolist()
    said = []
    for place, (layer, share) in enumerate(zip(layers, found, strict=True)):
        if band is None:
            said.append(LayerShare(layer, share, float(terms[place])))
            continue
        measured = float(distances[place])
        usual, most = float(band[_MIDDLE, place]), float(band[_HIGH, place])
        said.append(LayerShare(layer, share, measured, usual, measured > most))
    return tuple(sorted(said, key=lambda each: -each.share))


_TERMS: Mapping[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = {
    mean_distance: lambda distances: distances / len(distances),
    total: lambda contributions: contributions,
    volatility: lambda distances: distances.diff().abs() / (len(distances) - 1),
}
"""Of scores that are sums over layers, what they add up (planes,)."""


def _cluster(fitted: FittedLook, look: LookScore) -> int:
    """The one that a look was standardised in: nothing else remembers it."""
    standardised = (look.raw - fitted.location.double().cpu()) / fitted.scale.double().cpu()
    return int((standardised - look.score).abs().argmin())


def _nearest(
    kept: LookNeighbours, names: NeighbourNames, place: Tensor, n: int
) -> tuple[NearQuestion, ...]:
    distances, rows = kept.distances(place).sort()
    found = []
    for distance, row in zip(distances[:n].tolist(), rows[:n].tolist(), strict=True):
        name = names.questions[row]
        found.append(NearQuestion(name.id, name.file, name.kind, name.text, distance))
    return tuple(found)


def _nearest_kind(kept: LookNeighbours, names: NeighbourNames, place: Tensor) -> NearKind | None:
    if not names.kinds:
        return None
    distances = kept.kind_distances(place)
    row = int(distances.argmin())
    name = names.kinds[row]
    return NearKind(name.name, name.n_questions, float(distances[row]))
