"""The audit: documents, queries that were served and scored, their influence, and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from calibration.collection import Collection
from calibration.influence.findings import (
    Estimate,
    Mass,
    Procedures,
    Values,
    masses,
    procedures,
    spearman,
)
from calibration.influence.gradients import Kind
from calibration.influence.pairs import Influence, Options, influences, total
from calibration.influence.texts import Counted, documents, query
from calibration.pooling import Pool
from calibration.questions import Question
from calibration.reporting.scoring import scores_of
from detector.artifact import Artifact
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.text import Text
from detector.errors import CalibrationError

LAYERS: dict[str, tuple[Kind, ...]] = {"mlp": ("mlp",), "all": ("mlp", "attention")}
"""Which layers are summed: the MLPs' alone, as in both papers, and all linear ones."""


@dataclass(frozen=True)
class Finding:
    """By one choice of layers: of the sets in procedures; Spearman's correlations of score and
    mass, of all queries of a kind and of each set of the others, by mass; and what share of the sum
    of all |I| is of documents that make an answer less likely.
    """

    procedures: Procedures | None
    negative: float
    masses: dict[str, dict[Mass, Estimate]]


@dataclass(frozen=True)
class Audit:
    """What was run and found. `queries` are of both kinds, `scores` the guard's, `nats` minus the
    log-probabilities of their answers.
    """

    documents: Sequence[Counted]
    queries: Sequence[Counted]
    scores: Values
    influence: dict[str, Influence]
    findings: dict[str, Finding]

    def pairs(self, layers: str) -> Values:
        found: Values = self.influence[layers].pairs.numpy()
        return found

    def as_json(self) -> str:
        kept = {
            "documents": [[text.name, text.of, text.n_counted] for text in self.documents],
            "queries": [
                [text.name, text.of, text.n_counted, float(score)]
                for text, score in zip(self.queries, self.scores, strict=True)
            ],
            "findings": {name: asdict(finding) for name, finding in self.findings.items()},
            "influence": {
                name: {part: value.tolist() for part, value in vars(influence).items()}
                for name, influence in self.influence.items()
            },
        }
        return json.dumps(kept) + "\n"

    def __str__(self) -> str:
        lines = [f"{len(self.documents)} documents, {len(self.queries)} queries"]
        for name, finding in self.findings.items():
            lines.append(f"\nlayers: {name}")
            found = finding.procedures
            if found is not None:
                lines += [
                    "correlation of influence between two queries, mean over pairs",
                    f"  of one set             {found.same_set}",
                    f"  of one procedure, with other numbers {found.other_numbers}",
                    f"  of two procedures      {found.other_procedure}",
                    f"  the second above the third {found.difference}",
                    f"  nearest of the same procedure {found.nearest}, by chance "
                    f"{found.by_chance:.2f}",
                ]
            lines.append(f"of all influence, by size, {finding.negative:.0%} is negative")
            for which, by_mass in finding.masses.items():
                lines.append(f"Spearman's correlation of score and influence mass, {which}")
                lines += [f"  {mass:<10} {found}" for mass, found in by_mass.items()]
        return "\n".join(lines)


def audit(
    checkpoint: Checkpoint,
    artifact: Artifact,
    files: Sequence[tuple[str, Sequence[Question]]],
    families: Sequence[Collection],
    asked: Sequence[Collection],
    folder: Path,
    options: Options,
) -> Audit:
    """Influence of questions with answers on what was answered in collections.

    `families` are sets of questions in procedures, `asked` any others. Raises CalibrationError for
    a collection without responses, or a folder of another run.
    """
    _require_alike(artifact, checkpoint, (*families, *asked))
    text = Text(checkpoint.tokenizer, (*families, *asked)[0].record.context.template)
    queries: list[Counted] = []
    scores: list[float] = []
    for collection in (*families, *asked):
        found = scores_of(artifact.detector, Pool.whole(collection))
        name = collection.record.source.name
        rows = zip(collection.keys, collection.texts, collection.tokens, found, strict=True)
        for key, question, response, score in rows:
            made = query(text, key, name, question, response)
            if made is None:
                raise CalibrationError(
                    f"question {key} of {name!r} has no response: collect with --max-tokens, and a "
                    "look at the response such as --looks question,prompt,4",
                    param="queries",
                )
            queries.append(made)
            scores.append(float(score))
    read = documents(text, min(checkpoint.eos_ids), files)
    weights = checkpoint.fingerprint.weights
    by_block = influences(checkpoint.model, read, queries, folder, options, weights=weights)
    n_families = sum(len(collection.keys) for collection in families)
    return found_in(read, queries, np.array(scores), by_block, n_families)


def _require_alike(
    artifact: Artifact, checkpoint: Checkpoint, collections: Sequence[Collection]
) -> None:
    """Raise unless the artifact judges what was collected, and the model, in whichever dtype, is
    the one that answered.
    """
    manifest, model = artifact.manifest, checkpoint.fingerprint
    for collection in collections:
        record = collection.record
        manifest.require(record.fingerprint, record.model_name, record.engine)
        answered = record.fingerprint
        if (answered.config, answered.tokenizer) != (model.config, model.tokenizer):
            raise CalibrationError(
                f"collection {record.source.name!r} was answered by {record.model_name!r}, which "
                f"{checkpoint.name!r} is not: name that one with --model",
                param="model",
            )


def found_in(
    read: Sequence[Counted],
    queries: Sequence[Counted],
    scores: Values,
    by_block: dict[tuple[int, Kind], Influence],
    n_families: int,
) -> Audit:
    """What influence by block says; the first `n_families` queries are of procedures."""
    influence = {name: total(by_block, kinds) for name, kinds in LAYERS.items()}
    findings = {
        name: _finding(each, queries, scores, n_families) for name, each in influence.items()
    }
    return Audit(read, queries, scores, influence, findings)


def _finding(
    influence: Influence, queries: Sequence[Counted], scores: Values, n_families: int
) -> Finding:
    pairs, own, documents, nats = (
        value.numpy()
        for value in (influence.pairs, influence.queries, influence.documents, influence.nats)
    )
    of_each = masses(pairs, own, documents, nats)
    sets = [each.of for each in queries]
    rows = {
        "procedures": list(range(n_families)),
        "questions": list(range(n_families, len(sets))),
    }
    for place in rows["questions"]:
        rows.setdefault(sets[place], []).append(place)
    return Finding(
        procedures(pairs[:n_families], sets[:n_families]) if n_families else None,
        float(-pairs[pairs < 0].sum() / np.abs(pairs).sum()),
        {
            name: {mass: spearman(scores[some], found[some]) for mass, found in of_each.items()}
            for name, some in rows.items()
            if len(some) > 2
        },
    )
