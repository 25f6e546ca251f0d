"""What looks are called, when they are taken, and which a name stands for."""

from __future__ import annotations

import pytest

from detector.errors import CalibrationError
from detector.trajectory import (
    END,
    PROMPT,
    PROMPT_MEAN,
    QUESTION,
    in_order,
    left_out,
    look_name,
    parse_look,
    patch,
    patches,
    stage,
    taken_at,
)

NAMES = {
    "prompt": PROMPT,
    "question": QUESTION,
    "prompt-mean": PROMPT_MEAN,
    "end": END,
    "2": 2,
    "64": 64,
    "2-2": patch(2, 2),
    "9-16": patch(9, 16),
    "999999-999999": patch(999_999, 999_999),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_look_is_called_one_thing(name: str) -> None:
    assert parse_look(name) == NAMES[name]
    assert look_name(NAMES[name]) == name
    assert len(set(NAMES.values())) == len(NAMES)


def test_a_patch_leaves_out_what_is_before_it() -> None:
    assert (left_out(patch(9, 16)), taken_at(patch(9, 16))) == (8, 16)
    assert patch(1, 16) == 16
    assert [left_out(look) for look in (QUESTION, PROMPT_MEAN, END, PROMPT, 16)] == [0] * 5
    assert [taken_at(look) for look in (QUESTION, PROMPT_MEAN, END, PROMPT, 16)] == [0] * 4 + [16]
    assert stage(patch(2, 3)) == "response"


@pytest.mark.parametrize(
    "name", ["1", "0", "1-8", "16-9", "0-4", "9-", "-9", "9-16-17", "1000000", "2-1000000", "x"]
)
def test_what_is_no_look_is_refused_by_name(name: str) -> None:
    with pytest.raises(CalibrationError, match=f"look '{name}' is not a look: write .* 9-16"):
        parse_look(name)


def test_all_patches_of_a_size() -> None:
    assert list(map(look_name, patches("1-64/16"))) == ["16", "17-32", "33-48", "49-64"]
    # The last tokens are no whole patch.
    assert list(map(look_name, patches("9-20/8"))) == ["9-16"]
    assert list(map(look_name, patches("2-4/1"))) == ["2-2", "3-3", "4-4"]
    assert patches("prompt") == [PROMPT]
    for name in ("1-7/8", "1-64/1", "64-1/8", "8/8", "1-x/8", "1-64/", "0-64/8", "/", "1-2-3/1"):
        with pytest.raises(CalibrationError, match="has no patch of more tokens than one"):
            patches(name)


def test_looks_come_in_the_order_in_which_they_are_taken() -> None:
    looks = [END, patch(9, 16), 16, 8, patch(5, 8), PROMPT, patch(15, 16), QUESTION, 2]
    names = [look_name(look) for look in in_order(looks)]
    assert names == ["question", "prompt", "2", "8", "5-8", "16", "9-16", "15-16", "end"]
