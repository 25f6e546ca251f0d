"""Kinds of problems: the same for a seed, distinct, and with answers that are right."""

from __future__ import annotations

import ast
import hashlib
import json
import operator
import random
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from calibration import kinds
from calibration.__main__ import main
from calibration.generate import generate
from calibration.kinds import KINDS, WORD_PROBLEMS, generate_kind
from calibration.kinds.wording import NUMBER_WORDS, plain, rounded, shown, spread
from calibration.questions import key_of, read_questions
from detector.errors import CalibrationError

_DRAWS = 300
_FEWER = {"powers": 220, "calculator-keys": 150}


@pytest.mark.parametrize("name", KINDS)
def test_a_seed_makes_the_same_problems_and_another_seed_others(name: str) -> None:
    rows = generate_kind(name, 60, 3)
    assert rows == generate_kind(name, 60, 3)
    assert rows[:20] == generate_kind(name, 20, 3)
    others = {row["question"] for row in generate_kind(name, 60, 4)}
    assert len({row["question"] for row in rows} & others) <= 30
    assert {row["kind"] for row in rows} == {name}


@pytest.mark.parametrize("name", KINDS)
def test_draws_are_texts_with_answers_and_seldom_the_same(name: str) -> None:
    draw = random.Random(1)
    problems = [KINDS[name](draw) for _ in range(_DRAWS)]
    for question, answer in problems:
        assert question.strip() == question
        assert answer.strip() == answer != ""
        assert not re.search(r"[{}]|\bNone\b|Fraction|\.\.(?!\.)(?<!\.\.\.)|\?\?", question), (
            question
        )
    distinct = {question for question, _ in problems}
    assert len(distinct) >= _FEWER.get(name, 250)


@pytest.mark.parametrize("name", [name for name in KINDS if name != WORD_PROBLEMS])
def test_a_kind_has_many_frames(name: str) -> None:
    """Sentences with their numbers, names and other capitals taken out: not ten copies of one."""
    draw = random.Random(2)
    frames = {
        " ".join(re.findall(r"[a-z]{3,}", KINDS[name](draw)[0].partition(",")[0])[:4])
        for _ in range(_DRAWS)
    }
    assert len(frames) >= 12


_OPERATORS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value(expression: str) -> Fraction:
    """An expression's value, exactly."""
    signs = str.maketrans({"×": "*", "x": "*", "÷": "/", ":": "/", "−": "-"})

    def of(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](of(node.left), of(node.right))
        if isinstance(node, ast.UnaryOp):
            return -of(node.operand)
        return Fraction(ast.unparse(node))

    # Leading zeros and long decimals are numbers too: written so that Python keeps every digit.
    scaled = re.sub(
        r"\d+\.\d+", lambda m: "({}/{})".format(*Fraction(m[0]).as_integer_ratio()), expression
    )
    return of(ast.parse(scaled.translate(signs).replace(",", ""), mode="eval").body)


@pytest.mark.parametrize("name", ["arithmetic", "chains", "big-numbers", "fraction-arithmetic"])
def test_bare_arithmetic_is_right(name: str) -> None:
    checked = 0
    for row in generate_kind(name, _DRAWS, 5):
        text = re.sub(r"^\d+[).:] ", "", row["question"]).replace("Question:", "")
        text = re.sub(r"[A-Za-z]+:", "", text)
        found = re.findall(
            r"(?<!\w)[-(]*\d[\d.,]*\)?(?: ?[-+*/x×÷:−] ?[-(]*\d[\d.,]*\)?)+(?!\w)", text
        )
        if len(found) != 1 or "of" in text.split() or "number" in text or "fraction" in text:
            continue
        expression = found[0].rstrip(".,")
        if expression.count("(") != expression.count(")"):
            continue
        if name == "fraction-arithmetic":
            expression = re.sub(r"(\d+/\d+)", r"(\1)", expression)
        assert value(expression) == Fraction(row["answer"]), row
        checked += 1
    assert checked > _DRAWS // 3


def number(text: str) -> Fraction:
    text = text.strip().rstrip(".").lower()
    if text in NUMBER_WORDS:
        return Fraction(NUMBER_WORDS.index(text))
    return Fraction(re.sub(r"[^\d./-]", "", text.replace("Rs.", "")).rstrip("."))


_N = r"([\d,.]*\d|\b(?:" + "|".join(NUMBER_WORDS[1:]) + r"))"
_STORIES: tuple[tuple[str, str, Callable[..., Fraction | int]], ...] = (
    ("missing-numbers", rf"What number plus {_N} is {_N}\?", lambda a, b: b - a),
    ("missing-numbers", rf"increased by {_N} is {_N}\.", lambda a, b: b - a),
    ("percent", rf"are {_N} people at the [\w ]+\. {_N}% of them are", lambda a, b: a * b / 100),
    (
        "interest",
        rf"is [^\d]*{_N}[^\d]*, the rate {_N}% .* {_N} years?\.",
        lambda p, r, t: p * r * t / 100,
    ),
    ("speed", rf"travels {_N} \w+ an hour\. How far does it go in {_N} hours?", lambda v, t: v * t),
    ("ratio", rf"^{_N} \w+ weigh {_N} grams\. .*? do {_N} \w+ weigh", lambda a, b, c: b / a * c),
    ("flat-shapes", rf"is {_N} \w+ long and {_N} \w+ wide\. What is its area", lambda a, b: a * b),
    ("solids", rf"is {_N} \w+ long, {_N} \w+ wide and {_N} \w+ high", lambda a, b, c: a * b * c),
    ("ages", rf"is {_N} years old\. \w+ is {_N} years older", lambda a, b: a + b),
    ("change", rf"for [^\d]*{_N}[^\d]* and pays with [^\d]*?{_N}\D*\?", lambda a, b: b - a),
    (
        "sharing",
        rf"shares {_N} \w+ equally among {_N} children\. How many \w+ are left",
        lambda a, b: a % b,
    ),
    ("comparing", rf"has {_N} \w+\. \w+ has {_N} \w+\. How many more", lambda a, b: a - b),
    ("textbook", rf"had {_N} kg of \w+\. He sold {_N} kg", lambda a, b: a - b),
    (
        "probability",
        rf"holds {_N} (\w+) and {_N} .* probability that it is",
        lambda a, _, b: a / (a + b),
    ),
)


@pytest.mark.parametrize(("name", "pattern", "answer"), _STORIES)
def test_stories_are_right(name: str, pattern: str, answer: Callable[..., Fraction]) -> None:
    draw = random.Random(6)
    found = 0
    for _ in range(3000):
        question, said = KINDS[name](draw)
        if match := re.search(pattern, question):
            numbers = [
                number(group)
                if re.search(r"\d", group) or group.lower() in NUMBER_WORDS
                else Fraction(0)
                for group in match.groups()
            ]
            assert answer(*numbers) == Fraction(said), question
            found += 1
    assert found


def test_counts_are_the_sum_of_a_list_of_one_sort() -> None:
    checked = 0
    for row in generate_kind("object-counting", _DRAWS, 7):
        if match := re.search(
            r"^I have (.*?)\. How many (?:objects|things|items) (?!for)", row["question"]
        ):
            parts = re.split(r", and |, | and ", match[1])
            words = [part.split()[0] for part in parts]
            assert sum(1 if w in ("a", "an") else number(w) for w in words) == int(row["answer"])
            checked += 1
    assert checked


def test_lessons_end_when_they_should() -> None:
    checked = 0
    for row in generate_kind("durations", _DRAWS, 8):
        pattern = r"starts at (\d+:\d\d) and lasts (\d+) minutes\. When does it end\?"
        if match := re.search(pattern, row["question"]):
            end = datetime.strptime(match[1], "%H:%M") + timedelta(minutes=int(match[2]))
            assert f"{end.hour}:{end:%M}" == row["answer"]
            checked += 1
    assert checked


def test_numbers_are_written_exactly() -> None:
    assert [
        plain(x) for x in (7, Fraction(-7, 2), Fraction(1, 3), Fraction(1, 1000), Fraction(-4))
    ] == [
        "7",
        "-3.5",
        "1/3",
        "0.001",
        "-4",
    ]
    assert [rounded(x, n) for x, n in ((Fraction(5, 2), 0), (Fraction(12345), -2))] == [3, 12300]
    draw = random.Random(0)
    assert {shown(draw, 3) for _ in range(50)} == {"3", "three"}
    assert {shown(draw, 1_500_000) for _ in range(50)} == {"1500000", "1,500,000"}
    drawn = [spread(draw, 2, 9000) for _ in range(2000)]
    assert min(drawn) == 2
    assert max(drawn) <= 9000
    # Even in the logarithm: half of them below the square root of 2 * 9000, within 5 sigma.
    assert abs(sum(n < 134 for n in drawn) - 1000) < 5 * (2000 / 4) ** 0.5


def test_unknown_kinds_and_those_with_too_few_problems_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        CalibrationError, match=r"kind 'dance' is unknown: use one of word-problems"
    ):
        generate_kind("dance", 1, 0)
    few = {"few": lambda draw: (f"{draw.randint(1, 3)} + 1", "2")}
    monkeypatch.setattr(kinds, "KINDS", few)
    assert len(generate_kind("few", 3, 0)) == 3
    with pytest.raises(CalibrationError, match="kind 'few' has about 3 distinct problems, not 4"):
        generate_kind("few", 4, 0)


def test_word_problems_are_those_of_generate() -> None:
    rows = generate_kind(WORD_PROBLEMS, 50, 9)
    assert [(row["question"], int(row["answer"])) for row in rows] == generate(50, 9)


def test_the_command_writes_kinds_in_turn(tmp_path: Path) -> None:
    out = tmp_path / "q.jsonl"
    names = ["--kinds", "arithmetic", "ages", "word-problems"]
    assert main(["generate", "--n", "8", "--out", str(out), *names]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(8))
    assert [row["kind"] for row in rows] == ["arithmetic", "ages", "word-problems"] * 2 + [
        "arithmetic",
        "ages",
    ]
    questions, _ = read_questions(out)
    assert questions[1].fields == {"kind": "ages"}


def test_the_command_writes_word_problems_as_it_always_did(tmp_path: Path) -> None:
    out = tmp_path / "q.jsonl"
    assert main(["generate", "--n", "20", "--seed", "1", "--out", str(out)]) == 0
    assert (
        hashlib.sha256(out.read_bytes()).hexdigest()
        == "913ce1485aa5a7ea876f865acce47a2d6fe6253c5bb0a7da06b1e524bcec8f9f"
    )


def test_the_command_names_an_unknown_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--kinds", "dance", "--out", str(tmp_path / "q")]) == 2
    assert "kind 'dance' is unknown: use one of word-problems, arith" in capsys.readouterr().err


def test_problems_of_all_kinds_have_keys_of_their_own() -> None:
    rows = [row for name in KINDS for row in generate_kind(name, 40, 11)]
    keys = {key_of([{"role": "user", "content": row["question"]}]) for row in rows}
    assert len(keys) > 0.97 * len(rows)
