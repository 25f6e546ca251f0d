"""Reading the number that a text arrives at."""

from fractions import Fraction

import pytest

from calibration.bench.paper.answers import answer_text, is_correct, parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("The answer is 1,200.", 1200),
        ("First 3, then 4, so 7.0", 7),
        ("it costs $3.50", Fraction(7, 2)),
        ("about -5 degrees", -5),
        ("3/4 of it", Fraction(3, 4)),
        ("She pays 16 - 3 = <<16-3=13>>13.\n#### 13", 13),
        ("#### 2,125", 2125),
        ("no number", None),
        ("1/0", None),
        ("", None),
    ],
)
def test_the_last_number_is_meant(text: str, number: object) -> None:
    assert parse_number(text) == number


def test_correctness_compares_numbers_not_strings() -> None:
    assert is_correct("So 39.", 39.0) is True
    assert is_correct("139", 39.0) is False
    assert is_correct("none", 39.0) is False
    assert is_correct("7", "\\frac{x}{y}") is None
    assert answer_text(39.0) == "39"
    assert answer_text(2.5) == "2.5"
