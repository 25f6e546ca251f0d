"""Conversations made of questions: well formed, of every kind, held-out phrases apart."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from calibration import held_out_phrases, phrases
from calibration.dialogues import dialogue, final_answer, worked
from calibration.questions import key_of, read_questions

QUESTION = "Tom had 12 pens and lost 3. How many pens are left?"
OTHERS = ["What is 3/4 of 20?", "A bus has 40 seats and 31 are taken. How many are free?"]
_N = 1000


def many(n: int = _N, *, held_out: bool = False) -> list[tuple[list[dict[str, str]], str]]:
    draw = random.Random(1)
    return [dialogue(QUESTION, "9", OTHERS, draw, held_out=held_out) for _ in range(n)]


@pytest.mark.parametrize("held_out", [False, True])
def test_conversations_take_turns_and_end_with_the_user(held_out: bool) -> None:
    for messages, kind in many(held_out=held_out):
        roles = [message["role"] for message in messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        assert 3 <= len(turns) <= 9
        assert all(message["content"].strip() for message in messages)
        assert not any(re.search(r"\{[a-z]\w*\}", message["content"]) for message in messages)
        assert kind in phrases.FOLLOW_UPS


def test_the_same_draw_makes_the_same_conversations() -> None:
    assert many(50) == many(50)
    assert many(50) != many(50, held_out=True)


def test_every_kind_is_last_and_next_questions_are_the_others() -> None:
    seen = Counter(kind for _, kind in many())
    assert set(seen) == set(phrases.FOLLOW_UPS)
    assert min(seen.values()) > _N / 60
    for messages, kind in many():
        if kind == "next":
            assert any(
                other.lower().rstrip(".") in messages[-1]["content"].lower() for other in OTHERS
            )


def test_conversations_differ() -> None:
    assert len({key_of(messages) for messages, _ in many(300)}) >= 290


def test_a_share_has_an_apps_prompt() -> None:
    systems = [m[0]["content"] for m, _ in many() if m[0]["role"] == "system"]
    assert set(systems) == set(phrases.SYSTEMS)
    # 350 expected; 5 sigma of a binomial is 75.
    assert abs(len(systems) - 350) < 75


def test_held_out_phrases_are_others() -> None:
    ours, theirs = phrases, held_out_phrases
    assert theirs.FOLLOW_UPS.keys() <= ours.FOLLOW_UPS.keys()

    def words(texts: tuple[str, ...]) -> set[str]:
        return {" ".join(re.findall(r"[\w{}]+", text.lower())) for text in texts}

    def all_of(source: dict[str, tuple[str, ...]]) -> set[str]:
        return {text for texts in source.values() for text in words(texts)}

    for source, least in ((ours.FOLLOW_UPS, 55), (theirs.FOLLOW_UPS, 12)):
        assert all(len(words(texts)) >= least for texts in source.values())
    distinct = [phrase for texts in ours.FOLLOW_UPS.values() for phrase in {*map(str.lower, texts)}]
    assert len(distinct) == len(set(distinct))
    assert not all_of(ours.FOLLOW_UPS) & all_of(theirs.FOLLOW_UPS)
    assert not words(ours.GREETINGS) & words(theirs.GREETINGS)
    assert not words(ours.SYSTEMS) & words(theirs.SYSTEMS)
    assert min(len(set(ours.SYSTEMS)), len(set(theirs.SYSTEMS))) >= 12
    said = {m["content"] for messages, _ in many(held_out=True) for m in messages}
    assert not said & set(ours.SYSTEMS)


def test_follow_ups_name_numbers_only_where_there_are_some() -> None:
    draw = random.Random(2)
    for _ in range(500):
        messages, kind = dialogue("How many sides has a square?", None, [], draw)
        assert kind != "next"
        assert not re.search(r"\bthe  |instead of \?|not \.|\bthe \?", messages[-1]["content"])
        assert messages[1 if messages[0]["role"] == "system" else 0]["role"] == "user"


def test_corrections_are_the_question_with_another_number() -> None:
    corrected = set()
    for messages, kind in many():
        if kind == "typo" and "pens" in messages[-1]["content"] and len(messages) <= 4:
            corrected.add(messages[-1]["content"])
    assert corrected
    assert not any("12" in text and re.search(r"lost 3\.", text) for text in corrected)


def test_tutors_often_give_the_answer_that_is_known() -> None:
    replies = [
        m["content"] for messages, _ in many(300) for m in messages if m["role"] == "assistant"
    ]
    assert sum(bool(re.search(r"\b9\b", reply)) for reply in replies) > 100


def test_worked_answers_are_told_without_marks() -> None:
    answer = "She has 12 - 3 = <<12-3=9>>9 pens.\n#### 9"
    assert final_answer(answer) == "9"
    assert worked(answer) == "She has 12 - 3 = 9 pens."
    assert (final_answer("39.0"), final_answer("0.50"), final_answer(None)) == ("39", "0.50", None)
    assert (worked("39"), worked(None)) == ("", "")
    draw = random.Random(3)
    said = [m["content"] for _ in range(50) for m in dialogue(QUESTION, answer, OTHERS, draw)[0]]
    assert any("She has 12 - 3 = 9 pens.\nThe answer is 9." in text for text in said)
    assert not any("<<" in text or "####" in text for text in said)


def test_conversations_are_read_as_questions(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [json.dumps({"messages": messages, "kind": kind}) for messages, kind in many(20)]
    path.write_text("\n".join(rows) + "\n")
    questions, _ = read_questions(path)
    assert [question.text for question in questions] == [m[-1]["content"] for m, _ in many(20)]


def test_no_turn_is_empty() -> None:
    """Whatever a pupil types, be it "..." alone."""
    draw = random.Random(1)
    for _ in range(3000):
        messages, _ = dialogue("How many days have 3 weeks?", "21", [], draw)
        assert all(message["content"].strip() for message in messages)
