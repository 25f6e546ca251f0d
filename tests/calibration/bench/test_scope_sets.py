"""The sets around a scope, and what is made of them."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

import pytest

from calibration.bench.scope.made import _distinct, fair_rows, made_sets, ood_turn_rows
from calibration.bench.scope.sets import family_of, of_family, read_sets
from calibration.generate import generate
from calibration.variations import read_variations
from detector.errors import CalibrationError
from tests.calibration.bench.around_scope import around_scope, read_around_scope, write


def test_a_name_says_its_family() -> None:
    names = ("A_x", "P_00_unchanged", "B_y", "C_z", "D_w", "MATH_algebra", "E_x", "A_", "GSM8K")
    assert [family_of(name) for name in names] == [*"APBCD", "MATH", None, None, None]


def test_sets_are_read_whole_or_their_first_questions(tmp_path: Path) -> None:
    data, math = around_scope(tmp_path)
    whole, first = read_sets(data, [math]), read_sets(data, [math], 5)
    assert [found.name for found in of_family(whole, "P")] == ["P_00_unchanged", "P_upper"]
    for all_of_it, part in zip(whole, first, strict=True):
        assert part.questions == all_of_it.questions[:5]
        assert part.source.n_questions == 5
        assert part.source.sha256 != all_of_it.source.sha256
    assert read_sets(data, [math], 99) == whole


def test_a_name_that_says_nothing_is_refused(tmp_path: Path) -> None:
    data, _ = around_scope(tmp_path)
    with pytest.raises(CalibrationError, match=r"GSM8K\.jsonl say nothing"):
        read_sets(data, [write(tmp_path, "GSM8K", ["1 + 1"])])
    alone = write(tmp_path / "alone", "A_x", ["1 + 1"]).parent
    with pytest.raises(CalibrationError, match="no P_00_unchanged"):
        read_sets(alone, [])


def test_made_sets_are_distinct_and_the_same_every_time(tmp_path: Path) -> None:
    sets = read_around_scope(tmp_path)
    made = {found.name: found for found in made_sets(sets, [], tmp_path, 20)}
    assert {name: len(found.questions) for name, found in made.items()} == {
        "dialogues": 20,
        "ood_last_turns": 20,
        "fair_inside_plain": 12,
        "fair_inside_rewritten": 12,
        "fair_outside_plain": 12,
        "fair_outside_rewritten": 12,
    }
    again = {found.name: found for found in made_sets(sets, [], tmp_path, 20)}
    assert again == made
    assert made["dialogues"].kinds is not None
    assert set(made["ood_last_turns"].kinds or ()) == {"B_letters", "MATH_made_up"}
    assert made["fair_inside_plain"].kinds is None


def test_last_turns_are_ood_and_nothing_before_them(tmp_path: Path) -> None:
    sets = read_around_scope(tmp_path)
    inside = next(s.questions for s in sets if s.name == "P_00_unchanged")
    others = of_family(sets, "B")
    outside = {question.text for question in others[0].questions}
    for row in ood_turn_rows(inside, others, [], 20):
        assert row["messages"][-1]["content"] in outside
        assert row["messages"][-2]["role"] == "assistant"
        said = [message["content"] for message in row["messages"][:-1]]
        assert any(question.text in said for question in inside)
        assert not outside & set(said)


def test_too_few_questions_make_no_dialogues() -> None:
    same = ([{"role": "user", "content": "How many?"}], "why")
    with pytest.raises(CalibrationError, match="fewer than 300 distinct"):
        _distinct(repeat(same), 300, 1)


def test_fair_sides_are_rewritten_alike() -> None:
    inside = [text for text, _ in generate(30, seed=1)]
    outside = [f"Find the value of ${n}x + 2$ when $x = {n}$. Explain why." for n in range(50)]
    rows = fair_rows(inside, outside, 20)
    held_out = {kind.name for kind in read_variations().values() if kind.held_out}
    for side, texts in (("fair_inside", inside), ("fair_outside", outside)):
        plain = [row["question"] for row in rows[f"{side}_plain"]]
        assert len(set(plain)) == 20
        assert set(plain) <= set(texts)
        rewritten = rows[f"{side}_rewritten"]
        assert len(rewritten) == 20
        assert {name for row in rewritten for name in row["variations"].split()} <= held_out
        assert sum(row["question"] != text for row, text in zip(rewritten, plain, strict=True)) > 15
