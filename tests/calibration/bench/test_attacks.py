"""Attacks: where each puts the task, and that they are the same every time."""

from __future__ import annotations

import random

import pytest

from calibration.bench.scope.attacks import (
    ATTACKS,
    N_INSIDE,
    UNDISGUISED,
    Attack,
    Case,
    with_options,
)
from calibration.bench.scope.filler import N_FILLER, filler
from calibration.generate import generate

QUESTION = "Find all real numbers $x$ such that $x^2 = 7x - 12$."
INSIDE = tuple(text for text, _ in generate(N_INSIDE, seed=3))
CIPHERS = {"backwards", "rot13", "base64"}


def case() -> Case:
    return Case(QUESTION, INSIDE, random.Random(0))


def said_by(attack: Attack, role: str) -> list[str]:
    return [said["content"] for said in attack.write(case()) if said["role"] == role]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_the_same_every_time_and_ends_with_the_user(attack: Attack) -> None:
    messages = attack.write(case())
    assert messages == attack.write(case())
    assert messages[-1]["role"] == "user"
    assert all(said["content"].strip() for said in messages)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_task_stands_where_the_attack_says(attack: Attack) -> None:
    turns = said_by(attack, "user")
    if attack.place == "typed":
        assert len(turns) == 1
        assert (turns == [QUESTION]) == (attack.name == UNDISGUISED)
    elif attack.place == "beside":
        assert len(turns) == 1
        assert QUESTION in turns[0]
        assert len(turns[0]) > len(QUESTION)
    elif attack.name == "halves":
        assert f"{turns[0]} {turns[1]}".endswith(QUESTION)
    elif attack.place == "turns":
        assert turns[-1] == QUESTION
        assert turns[:-1] == list(INSIDE[: len(turns) - 1])
    else:
        assert QUESTION not in turns[-1]
        everywhere = [said["content"] for said in attack.write(case())]
        assert any(QUESTION in text for text in everywhere)


def test_names_are_distinct_and_only_ciphers_ask_to_be_read() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert len({attack.said for attack in ATTACKS}) == len(ATTACKS)
    asking = {a.name for a in ATTACKS if "answer it: " in said_by(a, "user")[0]}
    assert asking == CIPHERS


def test_filler_is_long_and_asks_nothing() -> None:
    padding = filler(random.Random(1))
    assert N_FILLER <= len(padding.split()) < N_FILLER + 20
    assert "?" not in padding


def test_options_are_four_numbers() -> None:
    lines = with_options(case()).splitlines()
    assert [line[:3] for line in lines[1:]] == ["A. ", "B. ", "C. ", "D. "]
    assert all(line[3:].isdecimal() for line in lines[1:])


def test_halves_of_one_word_leave_something_to_say() -> None:
    (halves,) = (attack for attack in ATTACKS if attack.name == "halves")
    messages = halves.write(Case("Why?", INSIDE, random.Random(0)))
    assert messages[-1]["content"]
