"""Fitting several collections: every question counts once, in one split."""

from __future__ import annotations

import json
from pathlib import Path

from calibration.collect import QuestionsFile, collect
from calibration.collection import read_collections
from calibration.fit import FitOptions, fit
from calibration.generate import generate
from calibration.pooling import pooled
from calibration.questions import key_of, read_questions
from detector.manifest import Context
from detector.trajectory import PROMPT
from tests.tiny import tiny_checkpoint


def test_a_question_in_two_files_counts_once(tmp_path: Path) -> None:
    questions = [question for question, _ in generate(180, seed=0)]
    copies = [question.upper() for question in questions[60:120]]
    files = []
    for name, rows in (("a", questions[:120]), ("b", [*copies, *questions[120:]])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"question": row}) for row in rows))
        files.append(QuestionsFile(*read_questions(path), tmp_path / name))
    collect(tiny_checkpoint(), files, context=Context(), looks=(PROMPT,), max_length=512)
    folders = [file.folder for file in files]
    pools = pooled(read_collections(folders), known_templates=True)
    keys = {
        split: [key_of([{"content": text}]) for text in pool.texts]
        for split, pool in pools.by_split.items()
    }
    found = sorted(key for split in keys.values() for key in split)
    assert found == sorted(key_of([{"content": question}]) for question in questions)
    # The first file that has a question gives it.
    assert not {text for pool in pools.by_split.values() for text in pool.texts} & set(copies)
    splits = fit(
        folders, "tests", FitOptions(rank=4, alpha=0.1, known_templates=True)
    ).manifest.splits
    assert splits.fit + splits.conformal + splits.holdout == 180
