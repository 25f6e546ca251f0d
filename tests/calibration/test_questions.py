"""Questions files in, errors with line numbers out, splits that never move."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.generate import generate, write_questions
from calibration.questions import (
    Question,
    Split,
    in_first,
    key_of,
    read_questions,
    require_answers,
    split_of,
)
from detector.errors import QuestionsError

SECRET = "my-private-words"


def key(text: str) -> str:
    return key_of([{"role": "user", "content": text}])


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
    assert questions[0].messages == ({"role": "user", "content": "What is 1 + 2?"},)
    assert questions[1].messages == tuple(messages)
    assert [question.answer for question in questions] == [3, None]
    assert (source.name, source.n_questions) == ("q", 2)


def test_options_are_part_of_the_question(tmp_path: Path) -> None:
    row = {"question": "2 + 2?", "options": ["3", "4", "5", "6"], "answer": "B"}
    (question,), _ = read_questions(write(tmp_path / "q.jsonl", json.dumps(row)))
    assert question.text == "2 + 2?\nA. 3\nB. 4\nC. 5\nD. 6"
    assert question.answer == "B"


@pytest.mark.parametrize("n", [2, 26])
def test_options_may_be_as_many_as_there_are_letters(tmp_path: Path, n: int) -> None:
    row = {"question": "Which?", "options": [f"option {i}" for i in range(n)]}
    (question,), _ = read_questions(write(tmp_path / "q.jsonl", json.dumps(row)))
    lines = question.text.splitlines()
    assert len(lines) == n + 1
    assert lines[-1] == f"{chr(ord('A') + n - 1)}. option {n - 1}"


def test_other_fields_that_are_texts_are_kept(tmp_path: Path) -> None:
    row = {"question": "2 + 2?", "options": ["3", "4"], "answer": "B", "route": "a", "n": 5}
    talk = {"messages": [{"role": "user", "content": "3 + 4?"}], "topic": "sums", "options": "no"}
    questions, _ = read_questions(write(tmp_path / "q.jsonl", json.dumps(row), json.dumps(talk)))
    assert [question.fields for question in questions] == [{"route": "a"}, {"topic": "sums"}]


def test_a_question_is_looked_for_in_question_then_prompt_then_messages(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "5 + 6?"}]
    rows = [
        {"messages": talk, "prompt": "3 + 4?", "question": "1 + 2?"},
        {"messages": talk, "prompt": "3 + 4?", "question": None},
        {"messages": talk, "prompt": None},
        {"prompt": [{"role": "user", "content": "7 + 8?"}], "topic": "sums"},
    ]
    questions, _ = read_questions(write(tmp_path / "q.jsonl", *map(json.dumps, rows)))
    assert [question.text for question in questions] == ["1 + 2?", "3 + 4?", "5 + 6?", "7 + 8?"]
    assert [question.fields for question in questions] == [
        {"prompt": "3 + 4?"},
        {},
        {},
        {"topic": "sums"},
    ]


def test_a_named_column_holds_the_question(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "5 + 6?"}]
    rows = [{"ask": "1 + 2?", "question": "other", "options": ["3", "4"]}, {"ask": talk}]
    path = write(tmp_path / "q.jsonl", *map(json.dumps, rows))
    questions, source = read_questions(path, "ask")
    assert [question.text for question in questions] == ["1 + 2?\nA. 3\nB. 4", "5 + 6?"]
    assert [question.fields for question in questions] == [{"question": "other"}, {}]
    # Other questions of the same rows are no resumption of a collection.
    assert source.sha256 != hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.sha256 == read_questions(path, "ask")[1].sha256
    with pytest.raises(QuestionsError) as caught:
        read_questions(path, "text")
    assert caught.value.message == (
        f"questions file {str(path)!r} line 1: no column 'text' (there are: ask, question, "
        "options): name one with --column"
    )


def test_messages_may_come_in_parts_and_an_answer_may_be_empty(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "3 + "}, {"type": "text", "text": "4?"}]
    talk = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": parts},
    ]
    path = write(tmp_path / "q.jsonl", json.dumps({"messages": talk}))
    (question,), _ = read_questions(path)
    assert [message["content"] for message in question.messages] == ["Hello", "", "", "3 + 4?"]


def test_a_file_s_record_has_its_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", json.dumps({"question": "2 + 2?"}), "")
    _, source = read_questions(path)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


LIST = "write a list of role and content"
OPTIONS = "write a list of 2 to 26 texts"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON (Expecting property name enclosed in double quotes at column 2)"),
        (SECRET, "not JSON (Expecting value at column 1): fix the line"),
        (b'{"question": "\xff"}', "not UTF-8 at byte 14: save the file as UTF-8"),
        ("[1]", 'a JSON list, not an object: write {"question": ...}'),
        (
            '{"answer": 1, "id": "a"}',
            "no column 'question' or 'prompt' or 'messages' (there are: answer, id): name one with "
            "--column",
        ),
        ("{}", "no column 'question' or 'prompt' or 'messages' (there are: none): name one"),
        ('{"question": null}', "'question' is empty: write a question or remove the row"),
        ('{"question": 5}', "'question' is int: write a text, or a list of role and content"),
        ('{"prompt": {"a": 1}}', "'prompt' is object: write a text, or a list of role and"),
        ('{"question": "  "}', "the question is empty: write one or remove the row"),
        ('{"question": "\\ud800"}', "half of a surrogate pair is no character: write it whole"),
        ('{"question": "a", "options": "b"}', f"'options' is text: {OPTIONS}"),
        ('{"question": "a", "options": "bc"}', f"'options' is text: {OPTIONS}"),
        ('{"question": "a", "options": ["b"]}', f"'options' is list: {OPTIONS}"),
        ('{"question": "a", "options": ["b", 1]}', f"'options' is list: {OPTIONS}"),
        (json.dumps({"question": "a", "options": ["b"] * 27}), f"'options' is list: {OPTIONS}"),
        ('{"messages": []}', f"'messages' is empty list: {LIST}"),
        ('{"messages": "hi"}', f"'messages' is text: {LIST}"),
        ('{"messages": ["hi"]}', "messages[0] has no text in 'content': write one"),
        ('{"messages": [{"role": "user"}]}', "messages[0] has no text in 'content': write one"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image_url", "text": "a"}]}]}',
            "messages[0] has no text in 'content': write one",
        ),
        (
            '{"messages": [{"role": "user", "content": [{"type": "text"}, "a"]}]}',
            "messages[0] has no text in 'content': write one",
        ),
        ('{"messages": [{"content": "a"}]}', "messages[0] has an unknown role: use one of system"),
        ('{"prompt": []}', f"'prompt' is empty list: {LIST}"),
        ('{"prompt": ["hi"]}', "prompt[0] has no text in 'content': write one"),
        (
            '{"messages": [{"role": "wizard", "content": "a"}]}',
            "messages[0] has an unknown role: use one of system, developer, user, assistant",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "a"}]}',
            "the last message is not the user's: end with the question",
        ),
        (
            '{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": " "}]}',
            "the question is empty: write one or remove the row",
        ),
    ],
)
def test_a_bad_line_is_named_and_never_quoted(tmp_path: Path, line: str | bytes, says: str) -> None:
    path = write(tmp_path / "q.jsonl", json.dumps({"question": SECRET}), line)
    with pytest.raises(QuestionsError) as caught:
        read_questions(path)
    assert caught.value.message.startswith(f"questions file {str(path)!r} line 2: {says}")
    assert SECRET not in caught.value.message
    assert caught.value.param == "questions"


def test_missing_and_empty_files(tmp_path: Path) -> None:
    missing, empty = tmp_path / "none.jsonl", write(tmp_path / "q.jsonl", "", " ")
    for path, says in (
        (missing, "cannot be read (No such file or directory): check the path"),
        (empty, "holds no question: write one JSON object a line, or rows under a heading"),
    ):
        with pytest.raises(QuestionsError) as caught:
            read_questions(path)
        assert caught.value.message == f"questions file {str(path)!r} {says}"
        assert caught.value.param == "questions"


def test_questions_without_an_answer_are_counted() -> None:
    questions = [Question((), "", answer) for answer in (0, None, "", None, 5)]
    require_answers(questions[::4], Path("q.jsonl"), "grading")
    with pytest.raises(QuestionsError) as caught:
        require_answers(questions, Path("q.jsonl"), "grading")
    assert caught.value.message == (
        "questions file 'q.jsonl': 2 of 5 rows have no 'answer', which grading needs: add an "
        "answer to each row"
    )
    assert caught.value.param == "questions"


def test_first_rows_of_every_hundred() -> None:
    assert [n for n in range(250) if in_first(n, 2)] == [0, 1, 100, 101, 200, 201]
    assert sum(in_first(n, 60) for n in range(600)) == 360


def test_copies_share_a_split_and_shares_are_kept() -> None:
    assert key("Joan found 70 shells. How many?") == key("joan found 70 shells . How many ?")
    assert key("70 shells") != key("71 shells")
    # Pinned: a question that changes split would leak from one to the other.
    assert split_of(key("What is 1 + 2?")) == "fit"
    assert [split_of(half + "0" * 8) for half in ("7fffffff", "80000000")] == ["fit", "conformal"]
    assert [split_of(half + "0" * 8) for half in ("cccccccc", "cccccccd")] == [
        "conformal",
        "holdout",
    ]
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


def words_alone(text: str) -> str:
    """The key as it was before signs counted in it."""
    return hashlib.sha256(" ".join(re.findall(r"\w+", text.lower())).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "texts",
    [
        ("3 + 4", "3 - 4", "3 * 4", "3 / 4", "3 ^ 4", "3 = 4", "3 < 4", "3 > 4", "3 != 4", "3 % 4"),
        ("What is 5?", "What is -5?", "What is 5!?", "What is 5%?", "What is $5?", "What is ~5?"),
        ("x + (y * z)", "(x + y) * z", "x + y * z", "x + {y * z}", "|x + y| * z"),
        ("n choose 2", "n! choose 2", "n!! choose 2"),
        ("3 5 left", "3.5 left", "3,5 left", "3:5 left", "3 .5 left", "3/5 left"),
        ("a × b", "a ÷ b", "a · b", "a ≤ b", "a ∈ b"),
        ("f(2) of f", "f'(2) of f", "f''(2) of f"),
    ],
)
def test_questions_that_differ_in_signs_are_different_and_in_one_split(
    texts: tuple[str, ...],
) -> None:
    keys = [key(text) for text in texts]
    assert len(set(keys)) == len(texts)
    assert len({found[:8] for found in keys}) == len({split_of(found) for found in keys}) == 1


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        ("What is 3 + 4?", " what is 3+4 ."),
        ('He said: "Hi!" How many?', "he said hi. How many"),
        ("It’s 5 apples; wait... 6!", "it's 5 apples, wait 6!"),
        ("What is 7 \N{MINUS SIGN} 2?", "What is 7 - 2?"),
        ("7 \N{EN DASH} 2", "7-2"),
        ("Well, then.", "WELL THEN!"),
        ("Is it .5 or 1,200.75?", "is it  .5 or 1,200.75"),
    ],
)
def test_copies_that_differ_in_spacing_case_or_punctuation_are_one(text: str, copy: str) -> None:
    assert key(text) == key(copy)


@given(st.text())
def test_signs_move_no_question_to_another_split(text: str) -> None:
    assert key(text)[:8] == words_alone(text)[:8]
    assert split_of(key(text)) == split_of(words_alone(text))


def test_keys_are_64_bits_wide_without_signs_too() -> None:
    """32 would give some two of 20,000 questions one key in every twentieth data set."""
    halves = {(found[:8], found[8:]) for found in map(key, ("one", "two", "one two", "two one"))}
    assert {len(half) for pair in halves for half in pair} == {8}
    assert len(halves) == 4
    assert not any(first == second for first, second in halves)


def test_a_conversation_is_known_by_all_that_is_said() -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4?"}]
    assert key_of(said) == key("Be brief.\n3 + 4?") != key("3 + 4?")


def test_every_question_has_a_seed_of_its_own() -> None:
    plus, minus = (Question((), key(text)) for text in ("3 + 4", "3 - 4"))
    assert plus.seed != minus.seed
    assert plus.seed == Question((), key("3+4 ?")).seed
    assert 0 <= plus.seed < 2**32


def test_a_file_keeps_questions_that_differ_in_a_sign(tmp_path: Path) -> None:
    rows = [json.dumps({"question": f"What is 3 {sign} 4?"}) for sign in "+-*/+"]
    questions, source = read_questions(write(tmp_path / "q.jsonl", *rows))
    assert source.n_questions == len(questions) == 4
