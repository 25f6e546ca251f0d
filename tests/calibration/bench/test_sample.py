"""A few held-out questions of each file."""

from __future__ import annotations

from pathlib import Path

from calibration.bench.paper.__main__ import main as paper
from calibration.generate import write_questions
from calibration.questions import read_questions, split_of


def test_each_file_gives_its_first_short_ones_that_are_held_out(tmp_path: Path) -> None:
    files = [tmp_path / f"{seed}.jsonl" for seed in (0, 1)]
    for seed, path in enumerate(files):
        write_questions(path, n=200, seed=seed)
    given = [str(path) for path in files]
    out = tmp_path / "sample.jsonl"
    asked = ["sample", *given, "--n", "3", "--longest", "120", "--out", str(out)]
    assert paper(asked) == 0
    chosen, _ = read_questions(out)
    assert len(chosen) == 6
    assert {split_of(question.key) for question in chosen} == {"holdout"}
    assert max(len(question.text) for question in chosen) <= 120
    for path, some in zip(files, (chosen[:3], chosen[3:]), strict=True):
        assert {question.key for question in some} < {q.key for q in read_questions(path)[0]}
    before = out.read_bytes()
    assert paper(asked) == 0
    assert out.read_bytes() == before
