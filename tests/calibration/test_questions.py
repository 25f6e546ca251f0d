"""Questions files in, errors with line numbers out, splits that never move."""

import json
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from calibration.generate import generate, write_questions
from calibration.questions import Split, key_of, read_questions, split_of
from detector.errors import QuestionsError

SECRET = "my-private-words"


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    return path


def test_questions_and_messages_are_read(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "And 3 + 4?"},
    ]
    path = write(
        tmp_path / "q.jsonl",
        json.dumps({"question": "What is 1 + 2?", "answer": 3}),
        "",
        json.dumps({"messages": messages}),
        json.dumps({"question": " what is 1+2 ? "}),
    )
    questions, source = read_questions(path)
    assert [question.text for question in questions] == ["What is 1 + 2?", "And 3 + 4?"]
    assert questions[1].messages == tuple(messages)
    assert (source.name, source.n_questions) == ("q", 2)


def test_options_are_part_of_the_question(tmp_path: Path) -> None:
    row = {"question": "2 + 2?", "options": ["3", "4", "5", "6"], "answer": "B"}
    (question,), _ = read_questions(write(tmp_path / "q.jsonl", json.dumps(row)))
    assert question.text == "2 + 2?\nA. 3\nB. 4\nC. 5\nD. 6"
    assert question.answer == "B"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        (SECRET, "not JSON"),
        (b'{"question": "\xff"}', "not UTF-8 at byte 14"),
        ("[1]", "a JSON list, not an object"),
        ('{"answer": 1}', "'question' is missing"),
        ('{"question": null}', "'question' is null"),
        ('{"question": 5}', "'question' is int"),
        ('{"question": "  "}', "the question is empty"),
        ('{"question": "a", "options": "b"}', "'options' is text"),
        ('{"question": "a", "options": ["b"]}', "'options' is list"),
        ('{"messages": []}', "'messages' is empty list"),
        ('{"messages": "hi"}', "'messages' is text"),
        ('{"messages": [{"role": "user"}]}', "messages[0] has no text"),
        ('{"messages": [{"role": "wizard", "content": "a"}]}', "messages[0] has an unknown role"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "not the user's"),
    ],
)
def test_a_bad_line_is_named_and_never_quoted(tmp_path: Path, line: str | bytes, says: str) -> None:
    path = write(tmp_path / "q.jsonl", json.dumps({"question": SECRET}), line)
    with pytest.raises(QuestionsError) as caught:
        read_questions(path)
    assert "q.jsonl' line 2: " in caught.value.message
    assert says in caught.value.message
    assert SECRET not in caught.value.message


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(QuestionsError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(QuestionsError, match="holds no question"):
        read_questions(write(tmp_path / "q.jsonl", "", " "))


def test_copies_share_a_split_and_shares_are_kept() -> None:
    def key(text: str) -> str:
        return key_of([{"role": "user", "content": text}])

    assert key("Joan found 70 shells. How many?") == key("joan found 70 shells . How many ?")
    assert key("70 shells") != key("71 shells")
    # Pinned: a question that changes split would leak from one to the other.
    assert split_of(key("What is 1 + 2?")) == "fit"
    n = 4000
    counts = Counter(split_of(key(question)) for question, _ in generate(n, seed=1))
    # Binomial standard deviations below sqrt(0.25 / 4000) = 0.0079; times 4.
    shares = [counts[split] / n for split in get_args(Split)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.032)


def test_generated_questions_are_seeded_distinct_and_right(tmp_path: Path) -> None:
    problems = generate(500, seed=3)
    assert problems == generate(500, seed=3)
    assert problems != generate(500, seed=4)
    assert len({question for question, _ in problems}) == 500
    assert all(answer > 0 for _, answer in problems)
    path = tmp_path / "folder" / "g.jsonl"
    write_questions(path, n=50, seed=3)
    questions, _ = read_questions(path)
    assert [question.text for question in questions] == [q for q, _ in problems[:50]]
