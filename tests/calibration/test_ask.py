"""Which questions are asked of a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from calibration.ask import Answer, ask, choose, describe
from calibration.generate import generate
from calibration.questions import Question, Split, split_of
from calibration.templates import templates_of
from detector.backend import Ask
from detector.errors import CalibrationError
from detector.trajectory import Look
from tests.app.clients import served, user
from tests.app.recorded import recorded_app


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of 40 questions, in two forms, 20 of them in both."""
    questions = [question for question, _ in generate(60, seed=7)]
    lines, cells = tmp_path / "q.jsonl", tmp_path / "q.csv"
    lines.write_text("\n".join(json.dumps({"prompt": question}) for question in questions[:40]))
    cells.write_text("\n".join(["prompt", *(f'"{question}"' for question in questions[20:])]))
    return [lines, cells]


def test_all_are_asked_unless_some_are_to_be_drawn(files: list[Path]) -> None:
    every = choose(files, None, None, None)
    assert len({question.key for question in every}) == len(every) == 60
    assert choose(files, "prompt", None, None) == every
    assert choose(files, None, None, 7) == choose(files[::-1], None, None, 7) == every[:7]
    holdout = choose(files, None, "holdout", None, known_templates=True)
    assert holdout == [question for question in every if split_of(question.key) == "holdout"]
    # By template otherwise: no form of a sentence is in two splits.
    splits = [choose(files, None, split, None) for split in get_args(Split)]
    assert sum(map(len, splits)) == 60
    labels = templates_of([question.text for split in splits for question in split])
    places = [place for place, split in enumerate(splits) for _ in split]
    assert len(set(zip(labels, places, strict=True))) == len(set(labels))


def test_more_than_there_are_cannot_be_drawn(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="holds 60 distinct questions, 61 were asked for"):
        choose(files, None, None, 61)
    (tmp_path / "one.jsonl").write_text('{"question": "What is 1 + 2?"}')
    with pytest.raises(CalibrationError, match="the holdout split of the files holds no question"):
        choose([tmp_path / "one.jsonl"], None, "holdout", None)


def test_what_is_drawn_is_counted_and_where_it_is_stopped() -> None:
    def second(ask: Ask, look: Look) -> float:
        return 5.0 if look == 4 else 0.0

    question = Question(tuple(user("What is 1 + 2?")), "0" * 16)
    for scores, stage, n_tokens in ((second, "response", 3), (lambda *_: 0.0, "response", 8)):
        with served(recorded_app(scores=scores)) as url:
            once, streamed = (ask(url, [question] * 3, 8, stream=how) for how in (False, True))
        assert once == streamed
        decision = "refuse" if n_tokens < 8 else "allow"
        assert once == [Answer(decision, stage, n_tokens)] * 3
        said = describe(once).splitlines()
        assert said[0] == f"{decision}: 3 of 3 = 100.0%, 95 % interval 29.2% to 100.0%"
        ended = "; 3 responses ended by a look at them, after 3 tokens in the median"
        assert said[1] == f"{3 * n_tokens} tokens drawn" + ended * (n_tokens < 8)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_service_is_told(stream: bool) -> None:
    question = Question(tuple(user("x" * 10_000)), "0" * 16)
    with served(recorded_app()) as url, pytest.raises(CalibrationError, match="answered 400: "):
        ask(url, [question], 8, stream=stream)
