"""Calibration questions that an artifact keeps as neighbours: see `detector.neighbours`.

They are of the conformal split, one of each template before a second of any, so that however many
near-copies there are of a question it is one neighbour. Kinds are those of the background, each by
the middle of its questions as they were written.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calibration.pooling import Pool
from calibration.questions import is_made
from detector.artifact import Artifact
from detector.errors import CalibrationError
from detector.neighbour_names import KindName, NeighbourName, NeighbourNames
from detector.neighbours import Neighbours, Space, look_neighbours
from detector.trajectory import Look

N_NEIGHBOURS = 1000
RANK = 24
"""Directions of each layer. More than about twenty say no more of a question's kind."""

FEWEST_OF_A_KIND = 5
"""The middle of fewer questions is mostly theirs."""


@dataclass(frozen=True)
class NeighbourOptions:
    """How many questions are kept, and of which their texts: of all, or of some files."""

    n: int = N_NEIGHBOURS
    keep_questions: bool = False
    keep_questions_of: tuple[str, ...] = ()

    def keeps(self, file: str) -> bool:
        return self.keep_questions or file in self.keep_questions_of

    def require_files(self, files: Sequence[str]) -> None:
        """Raise CalibrationError for a name of none of the files."""
        for name in self.keep_questions_of:
            if name not in files:
                raise CalibrationError(
                    f"--keep-questions-of {name!r} is none of the questions files "
                    f"({', '.join(dict.fromkeys(files))}): name one of them",
                    param="keep-questions-of",
                )


def with_neighbours(
    artifact: Artifact,
    fitted: Pool,
    conformal: Pool,
    background: Pool | None,
    options: NeighbourOptions,
) -> Artifact:
    """The same artifact, whose detector judges by the same numbers, with neighbours.

    Raises CalibrationError where no conformal question got to all of its looks.
    """
    options.require_files([each.record.source.name for each in conformal.collections])
    looks = list(dict.fromkeys(each.look for each in artifact.detector.looks))
    chosen = _reached(conformal.take(_one_of_each(conformal)), looks)
    chosen = chosen.take(range(min(options.n, len(chosen))))
    if not len(chosen):
        raise CalibrationError(
            "no conformal question got to all looks, of which neighbours are taken: leave them "
            "out with --neighbours 0",
            param="neighbours",
        )
    others = None if background is None else _reached(background.take(_written(background)), looks)
    by_kind = {} if others is None else _by_kind(others)
    kept = {}
    for look in looks:
        outside = None if others is None else others.at([look])[look]
        space = Space.fit(fitted.at([look])[look], outside, RANK)
        places = space.places(chosen.at([look])[look])
        middles = places.new_empty(0, places.shape[1])
        if outside is not None and by_kind:
            middles = _middles(space.places(outside), list(by_kind.values()))
        kept[look] = look_neighbours(space, places, middles)
    names = NeighbourNames(
        questions=tuple(
            NeighbourName(
                id=key,
                file=file,
                kind=fields.get("kind"),
                text=text if options.keeps(file) else None,
            )
            for key, file, fields, text in zip(
                chosen.keys, chosen.files, chosen.fields, chosen.texts, strict=True
            )
        ),
        kinds=tuple(KindName(name=name, n_questions=len(rows)) for name, rows in by_kind.items()),
    )
    return Artifact.of(
        replace(artifact.detector, neighbours=Neighbours(kept)),
        artifact.manifest.model_copy(update={"neighbours": names}),
    )


def _one_of_each(pool: Pool) -> list[int]:
    """Places of the questions as they were typed, a round of all units after another, in an order
    that has to do with no question's words.
    """
    units = pool.units or pool.rows
    rounds: defaultdict[int, int] = defaultdict(int)
    dealt = []
    keys = pool.keys
    for place in sorted(_written(pool), key=lambda place: _drawn(keys[place])):
        dealt.append((rounds[units[place]], _drawn(keys[place]), place))
        rounds[units[place]] += 1
    return [place for *_, place in sorted(dealt)]


def _drawn(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _written(pool: Pool) -> list[int]:
    """Places of the questions that `vary` did not make of others."""
    return [place for place, fields in enumerate(pool.fields) if not is_made(fields)]


def _reached(pool: Pool, looks: Sequence[Look]) -> Pool:
    """Its questions that have a trajectory at every look."""
    ended = torch.zeros(len(pool), dtype=torch.bool)
    for planes in pool.at(looks).values():
        ended |= planes[0][:, 0].isnan()
    return pool.take([place for place, has in enumerate((~ended).tolist()) if has])


def _by_kind(pool: Pool) -> dict[str, list[int]]:
    """Places of the questions of each kind, a file's name where they have none."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for place, (fields, file) in enumerate(zip(pool.fields, pool.files, strict=True)):
        found[fields.get("kind") or file].append(place)
    return {name: found[name] for name in sorted(found) if len(found[name]) >= FEWEST_OF_A_KIND}


def _middles(places: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.stack([places[list(each)].mean(0) for each in rows])
