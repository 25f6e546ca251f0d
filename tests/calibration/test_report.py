"""The report: against counts by hand, and what it will not compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.collect import QuestionsFile, collect
from calibration.collection import CollectionFolder, read_collections
from calibration.fit import FitOptions, fit
from calibration.generate import generate
from calibration.pooling import Pool, pooled
from calibration.questions import read_questions
from calibration.reporting.report import ReportOptions, report
from detector.artifact import Artifact
from detector.engine.model.checkpoint import Checkpoint
from detector.errors import CalibrationError
from detector.manifest import Context
from detector.trajectory import PROMPT
from tests.tiny import tiny_checkpoint

# Shouted, as half of the questions here are, they are the same in canonical text.
TYPED = Context(text="typed")


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    return tiny_checkpoint()


def collected(
    model: Checkpoint, path: Path, rows: list[dict[str, str]], context: Context | None = None
) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    file = QuestionsFile(*read_questions(path), path.with_suffix(""))
    collect(model, [file], context=context or TYPED, looks=(PROMPT,), max_length=512)
    return file.folder


def rows_of(n: int, seed: int) -> list[dict[str, str]]:
    """Two kinds of question: as they are, and a rarer one that shouts."""
    return [
        {"question": question.upper()[::-1], "kind": "loud"}
        if k % 5 == 0
        else {"question": question, "kind": "quiet"}
        for k, (question, _) in enumerate(generate(n, seed))
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, model: Checkpoint) -> tuple[Path, Path]:
    """In-distribution questions of two kinds, and as OOD ones some of a single kind."""
    folder = tmp_path_factory.mktemp("report")
    return (
        collected(model, folder / "id.jsonl", rows_of(500, 0)),
        collected(
            model,
            folder / "ood.jsonl",
            [row for row in rows_of(300, 1) if row["kind"] == "quiet"],
        ),
    )


@pytest.fixture(scope="module")
def grouped(folders: tuple[Path, Path]) -> Artifact:
    return fit(
        [folders[0]], "tests", FitOptions(rank=4, alpha=0.1, group_by="kind", known_templates=True)
    )


def test_every_question_is_judged_by_its_group_s_threshold(
    folders: tuple[Path, Path], grouped: Artifact
) -> None:
    inside, outside = folders
    found = report(grouped, [inside], ReportOptions(ood=(outside,)))
    detector = grouped.detector
    # floor(0.1 (n + 1)) of a group's own conformal questions lie above its threshold.
    cuts = {
        name: float(group.scores[-int(0.1 * (len(group) + 1))])
        for name, group in detector.groups.items()
    }
    assert set(cuts) == {"loud", "quiet"}

    def flagged(pool: Pool, by_group: bool) -> dict[str, int]:
        scores = detector.maxima(pool.at([PROMPT])).tolist()
        kinds = [fields["kind"] for collection in pool.collections for fields in collection.fields]
        counts = dict.fromkeys(cuts, 0)
        for score, row in zip(scores, pool.rows, strict=True):
            kind = kinds[row]
            counts[kind] += score > (cuts[kind] if by_group else detector.threshold)
        return counts

    holdout = pooled(read_collections([inside]), known_templates=True)["holdout"]
    expected = flagged(holdout, by_group=True)
    assert expected != flagged(holdout, by_group=False)
    assert {group.name: group.n_false_alarms for group in found.groups} == expected
    assert {group.name: group.threshold for group in found.groups} == pytest.approx(cuts)
    assert found.holdout.n_flagged == sum(expected.values())
    ood = CollectionFolder(outside).read()
    whole = Pool((ood,), tuple(range(len(ood.keys))))
    recalled = sum(flagged(whole, by_group=True).values())
    assert recalled != sum(flagged(whole, by_group=False).values())
    assert found.ood[0].recall == pytest.approx(recalled / len(whole))


def test_other_contexts_are_not_compared(
    folders: tuple[Path, Path], grouped: Artifact, model: Checkpoint, tmp_path: Path
) -> None:
    inside, _ = folders
    for number, context in enumerate((Context(template="Q: {question}"), Context(max_tokens=9))):
        other = collected(model, tmp_path / f"{number}.jsonl", rows_of(60, 2), context)
        with pytest.raises(CalibrationError, match="another context than the artifact"):
            report(grouped, [inside], ReportOptions(ood=(other,)))
        with pytest.raises(CalibrationError, match="another context than the artifact"):
            report(grouped, [other], ReportOptions())
