"""How questions stand, and what they weigh by it."""

from __future__ import annotations

import pytest
import torch

from calibration.standing import balanced, standing


@pytest.mark.parametrize(
    ("variation", "expected"),
    [
        ("", "alone"),
        ("lower-case thanks", "alone"),
        ("pair quoted", "beside"),
        ("background-first", "beside"),
        ("background-last typos", "beside"),
        ("background-turn", "turn"),
        ("why hedges", "turn"),
    ],
)
def test_the_first_variation_says_how_a_question_stands(variation: str, expected: str) -> None:
    assert standing({"variation": variation}) == expected


def test_a_question_that_was_not_varied_stands_alone() -> None:
    assert standing({"kind": "why"}) == "alone"


def _side(**counts: int) -> list[dict[str, str]]:
    names = {"alone": "", "beside": "pair", "turn": "why"}
    return [{"variation": names[way]} for way, n in counts.items() for _ in range(n)]


def test_each_way_to_stand_weighs_the_same_on_both_sides() -> None:
    first, second = balanced(_side(alone=6, beside=2), _side(alone=1, beside=3))
    # Shares of 3/4 and 1/4 are 1/2 on average, and 1/4 and 3/4 too.
    torch.testing.assert_close(first, torch.tensor([0.5 / 6] * 6 + [0.25] * 2))
    torch.testing.assert_close(second, torch.tensor([0.5] + [0.5 / 3] * 3))


def test_what_one_side_lacks_keeps_its_weight() -> None:
    first, second = balanced(_side(alone=6, turn=2), _side(alone=5))
    assert first[:6].sum() / first[6:].sum() == pytest.approx(((0.75 + 1) / 2) / 0.25)
    torch.testing.assert_close(second, torch.full((5,), 0.2))
