"""Why questions are flagged that should not be, and those that should: layers, nearest calibration
questions, kind out of scope.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.pooling import Pool
from calibration.reporting.judged import Judged
from calibration.reporting.scoring import Scored
from detector.artifact import Artifact
from detector.explanation import LayerShare, NearKind, NearQuestion, explain
from detector.trajectory import in_order, look_name

FALSE_ALARMS = "false alarms"
N_FALSE_ALARMS = 5
N_OF_A_FILE = 3
N_LAYERS = 3
"""Layers that are told, of those that speak against a question."""

_LONGEST = 90


@dataclass(frozen=True)
class Explained:
    """One flagged question: `of` the holdout's false alarms or an OOD file, by its key; its text
    only if that is shown. `usual` is a calibration question's median distance to its nearest.
    """

    of: str
    key: str
    score: float
    look: str
    name: str
    layers: tuple[LayerShare, ...]
    neighbours: tuple[NearQuestion, ...]
    usual: float | None
    kind: NearKind | None
    note: str | None
    text: str | None = None

    @property
    def against(self) -> str:
        """The layers that speak against it most, in words."""
        said = [
            f"{each.layer} {each.share:+.2f}{' (beyond)' * bool(each.beyond)}"
            for each in self.layers[:N_LAYERS]
            if each.share > 0
        ]
        return ", ".join(said) or "none by itself"


def explained(judged: Judged, *, texts: bool = False) -> tuple[Explained, ...]:
    """The holdout's worst false alarms, one of a template, and what is flagged with the highest
    scores of each OOD file.
    """
    detector = judged.artifact.detector
    found: list[Explained] = []
    for of, scored, n in (
        (FALSE_ALARMS, judged.inside, N_FALSE_ALARMS),
        *((name, scored, N_OF_A_FILE) for name, scored in judged.outside.items()),
    ):
        flagged = np.flatnonzero(scored.flagged(detector))
        highest = flagged[np.argsort(-scored.scores[flagged], kind="stable")].tolist()
        units = scored.pool.units or range(len(scored.pool))
        first: dict[int, int] = {}
        for place in highest:
            first.setdefault(units[place], place)
        chosen = list(first.values())[:n]
        if chosen:
            found += _explained(judged.artifact, of, scored, chosen, texts=texts)
    return tuple(found)


def usual_distances(rows: Sequence[Explained]) -> str:
    """How far calibration questions are from their nearest, at each look; empty if not known."""
    usual = {row.look: row.usual for row in rows if row.usual is not None}
    return ", ".join(f"{_far(distance)} at the look {look}" for look, distance in usual.items())


def _explained(
    artifact: Artifact, of: str, scored: Scored, places: Sequence[int], *, texts: bool
) -> Iterator[Explained]:
    detector = artifact.detector
    pool: Pool = scored.pool.take(places)
    looks = in_order({fitted.look for fitted in detector.looks})
    at = {look: next(planes.batches()) for look, planes in pool.at(looks).items()}
    keys, own = pool.keys, pool.texts
    for row, place in enumerate(places):
        # One that ended before a look has none there.
        reached = [look for look in looks if not bool(at[look][row].isnan().all())]
        rows = {look: at[look][row : row + 1] for look in reached}
        taken = [score for look in reached for score in detector.score(look, rows[look])[0]]
        where = {}
        if detector.neighbours is not None:
            lie = {look: detector.neighbours.place(look, rows[look]) for look in reached}
            where = {look: found[0] for look, found in lie.items() if found is not None}
        verdict = detector.judge(taken, scored.groups[place])
        said = explain(detector, artifact.manifest, verdict, where)
        assert said.look is not None
        assert said.score is not None
        yield Explained(
            of=of,
            key=keys[row],
            score=said.score,
            look=look_name(said.look),
            name=said.score_name or "",
            layers=said.shares,
            neighbours=said.neighbours,
            usual=None if said.usual is None else said.usual[0],
            kind=said.kind,
            note=said.note,
            text=own[row] if texts else None,
        )


def written(rows: Sequence[Explained]) -> list[str]:
    """Lines of the report; none where nothing is flagged."""
    lines: list[str] = []
    headed = ""
    for row in rows:
        if row.of != headed:
            headed = row.of
            lines += ["", f"why these are flagged: {headed}"]
        lines.append(f"{row.key}  score {row.score:.2f}, {row.look} ({row.name})")
        if row.layers:
            lines.append(f"  layers against it: {row.against}")
        lines += [f"  {_far(each.distance)} from {named(each)}" for each in row.neighbours[:2]]
        if row.kind is not None:
            lines.append(f"  {_far(row.kind.distance)} from the kind {row.kind.name}")
    if usual := usual_distances(rows):
        lines.append(f"(calibration questions are from their nearest, in the median: {usual})")
    if rows and rows[0].note is not None:
        lines.append(f"(no questions to compare with: {rows[0].note})")
    return lines


def named(near: NearQuestion) -> str:
    """A calibration question in a line."""
    of = ", ".join([near.file, *([near.kind] if near.kind else [])])
    if near.text is None:
        return f"{near.id} ({of})"
    text = " ".join(near.text.split())
    return f"{near.id} ({of}): {text[:_LONGEST]}{'…' * (len(text) > _LONGEST)}"


def _far(distance: float) -> str:
    return f"{distance:.2f}"
