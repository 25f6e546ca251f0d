"""Kinds of nearest questions: each kept question among the others, and background questions among
the middles of kinds that were worked out without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from calibration.neighbours import NeighbourOptions, with_neighbours
from calibration.pooling import Pool, background_pool, pools_of
from calibration.questions import is_made, position_of
from calibration.reporting.judged import read_alike
from detector.artifact import Artifact
from detector.conformal import proportion_interval
from detector.errors import CalibrationError
from detector.trajectory import Look, look_name


@dataclass
class Nearer:
    """How many of some flagged questions lie nearer to the middle of a kind out of scope than to
    any calibration question.
    """

    n: int = 0
    n_nearer: int = 0

    def __str__(self) -> str:
        low, high = proportion_interval(self.n_nearer, self.n)
        return (
            f"{self.n_nearer} of {self.n}, {self.n_nearer / self.n:.1%} ({low:.1%} to {high:.1%})"
        )


@dataclass
class Tally:
    """How many of some questions had a nearest of their kind; `chance` is the rate of a nearest
    drawn at random.
    """

    n: int = 0
    n_right: int = 0
    n_among_three: int = 0
    chance: float = 0.0

    def add(self, kind: str, nearest: Sequence[str]) -> None:
        self.n += 1
        self.n_right += nearest[0] == kind
        self.n_among_three += kind in nearest[:3]

    def __str__(self) -> str:
        said = []
        for name, count in (("nearest", self.n_right), ("one of 3 nearest", self.n_among_three)):
            low, high = proportion_interval(count, self.n)
            said.append(
                f"{name} {count} of {self.n}, {count / self.n:.1%} ({low:.1%} to {high:.1%})"
            )
        return f"{', '.join(said)}; at random {self.chance:.1%}"


def inside(artifact: Artifact) -> Iterator[str]:
    """Of each look; each question is one of another template than the others', as far as there
    are templates enough. Raises CalibrationError for an artifact without neighbours.
    """
    kept, names = artifact.detector.neighbours, artifact.manifest.neighbours
    if kept is None or names is None:
        raise CalibrationError(
            "the artifact has no neighbours: add them with `trajguard neighbours`", param="artifact"
        )
    kinds = [each.kind or each.file for each in names.questions]
    has_kind = [each.kind is not None for each in names.questions]
    for look, found in kept.looks.items():
        whole, only = Tally(), Tally()
        for row, kind in enumerate(kinds):
            distances = found.distances(found.questions[row].float())
            distances[row] = torch.inf
            nearest = [kinds[place] for place in distances.argsort()[:3].tolist()]
            whole.add(kind, nearest)
            if has_kind[row]:
                only.add(kind, nearest)
        whole.chance = _chance(kinds)
        only.chance = _chance(kinds, has_kind)
        name = look_name(look)
        yield f"in scope, {name}, {len(set(kinds))} kinds or files: {whole}"
        yield f"in scope, {name}, of those with a kind: {only}"


def _chance(kinds: Sequence[str], taken: Sequence[bool] | None = None) -> float:
    counts = Counter(kinds)
    picked = [kind for row, kind in enumerate(kinds) if taken is None or taken[row]]
    return sum(counts[kind] - 1 for kind in picked) / len(picked) / (len(kinds) - 1)


def outside(
    artifact: Artifact,
    collected: Sequence[Path],
    contrast: Sequence[Path],
    n_folds: int,
    *,
    by_kind: bool = False,
) -> Iterator[str]:
    """Of each look: background questions as they were written, a fold at a time, by what was made
    of the others, directions and middles alike. Then of those that are flagged, and of the false
    alarms among holdout questions as they were typed, which are nearer to a kind out of scope.
    With `by_kind` folds are of whole kinds, and only this can be asked.
    """
    pools = pools_of(artifact.manifest, read_alike(artifact, collected))
    background, _ = background_pool(read_alike(artifact, contrast), pools)
    typed = [n for n, fields in enumerate(background.fields) if not is_made(fields)]
    background = background.take(typed)
    drawn = background.keys
    if by_kind:
        drawn = [sha256(_kind(fields).encode()).hexdigest() for fields in background.fields]
    folds = [int(position_of(key) * n_folds) for key in drawn]
    tallies: dict[Look, Tally] = {}
    nearer: dict[tuple[Look, str], Nearer] = {}
    kinds = set()
    holdout = pools["holdout"]
    holdout = holdout.take([n for n, fields in enumerate(holdout.fields) if not is_made(fields)])
    for fold in range(n_folds):
        rest, left_out = (
            background.take([n for n, each in enumerate(folds) if (each == fold) == is_out])
            for is_out in (False, True)
        )
        made = with_neighbours(artifact, pools["fit"], pools["conformal"], rest, NeighbourOptions())
        kinds |= _add(tallies, made, left_out)
        _compare(nearer, made, "out of scope", left_out)
        if not fold:
            _compare(nearer, made, "false alarms", holdout)
    for look, tally in () if by_kind else tallies.items():
        tally.chance = 1 / len(kinds)
        yield f"out of scope, {look_name(look)}, {len(kinds)} kinds: {tally}"
    for (look, what), found in nearer.items():
        if found.n:
            yield f"flagged at {look_name(look)} and nearer to a kind out of scope, {what}: {found}"


def _compare(nearer: dict[tuple[Look, str], Nearer], made: Artifact, what: str, pool: Pool) -> None:
    """At each look, what is flagged there."""
    detector = made.detector
    assert detector.neighbours is not None
    for look, found in detector.neighbours.looks.items():
        alone = replace(detector, looks=tuple(each for each in detector.looks if each.look == look))
        planes = pool.at([look])
        flagged = alone.maxima(planes) > detector.threshold
        count = nearer.setdefault((look, what), Nearer())
        for place in found.space.places(planes[look])[flagged]:
            count.n += 1
            middle, question = found.kind_distances(place).min(), found.distances(place).min()
            count.n_nearer += bool(middle < question)


def _kind(fields: Mapping[str, str]) -> str:
    return fields.get("kind", "")


def _add(tallies: dict[Look, Tally], made: Artifact, left_out: Pool) -> set[str]:
    """The kinds that there are; questions of others, too few to have a middle, are not asked."""
    assert made.detector.neighbours is not None
    assert made.manifest.neighbours is not None
    names = [each.name for each in made.manifest.neighbours.kinds]
    asked = list(map(_kind, left_out.fields))
    for look, found in made.detector.neighbours.looks.items():
        places: Tensor = found.space.places(left_out.at([look])[look])
        tally = tallies.setdefault(look, Tally())
        for kind, place in zip(asked, places, strict=True):
            if kind in names:
                order = found.kind_distances(place).argsort()[:3].tolist()
                tally.add(kind, [names[row] for row in order])
    return set(names)
