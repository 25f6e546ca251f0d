"""Each rewriting: what it changes, and what it leaves alone."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.rewriting import layout, letters, numbers, people, tasks
from calibration.variations import of_kind, read_variations

VARIATIONS = read_variations()


def digits(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def rewritten(name: str, text: str) -> str:
    result = of_kind(text, 0, VARIATIONS[name])
    assert result is not None
    return result


@given(st.integers(0, 9999))
def test_a_number_is_spelled_as_it_is_read(n: int) -> None:
    values = {numbers.spelled(m): m for m in [*range(20), *range(20, 100, 10)]}
    total = value = 0
    for word in re.split("[ -]", numbers.spelled(n).replace(" and ", " ")):
        if word == "thousand":
            total, value = value * 1000, 0
        else:
            value = value * 100 if word == "hundred" else value + values[word]
    assert total + value == n


@given(st.lists(st.integers(2, 99), min_size=1, max_size=4))
def test_words_and_digits_are_one_another(found: list[int]) -> None:
    text = "He saw " + " cats, ".join(map(str, found)) + " dogs."
    draw = random.Random(0)
    assert numbers.digits(numbers.number_words(text, draw), draw) == text


@pytest.mark.parametrize(
    "text",
    [
        "It is 3.5 miles, 1/2 past 8:30, 20% of $12 or $ 7, on page B4 and the 3rd of 1 1/2.",
        "He was born in 1999 and 10007 is large.",
    ],
)
def test_numbers_that_are_parts_stay(text: str) -> None:
    assert of_kind(text, 0, VARIATIONS["number-words"]) is None
    assert of_kind("two hundred five, one-half, twenty five", 0, VARIATIONS["digits"]) is None


def test_thousands_are_grouped_and_years_are_not() -> None:
    text = "In 1999 it had 1999 cats, 48097 dogs and 3.14159 of 12,000 birds."
    grouped = "In 1999 it had 1,999 cats, 48,097 dogs and 3.14159 of 12,000 birds."
    assert rewritten("thousands-comma", text) == grouped
    spaced = rewritten("thousands-space", text)
    assert re.sub(r"(?<=\d)[ \u202f'](?=\d{3})", ",", spaced) == grouped


def test_people() -> None:
    draw = random.Random(1)
    text = "Dan has 5 cats and feeds Ann's dog. He buys 2 more from Mr. Gray. How many has Dan?"
    renamed = people.other_names(text, draw)
    assert "Dan" not in renamed
    assert "Ann" in renamed  # a name that is not known
    assert len(set(people._PERSON.findall(people.names_from_elsewhere(text, draw)))) == 0
    text = "Dan has 5 cats. Ann gave Dan 3 of her dogs. How many cats does Dan have?"
    assert people.first_person(text, draw) == text  # "her" is somebody else's
    text = "Dan has 5 cats. Ann gave Dan 3 dogs and is Dan's boss. How many cats does Dan have?"
    told = "I have 5 cats. Ann gave me 3 dogs and is my boss. How many cats do I have?"
    assert people.first_person(text, draw) == told
    text = "Lucy watches 5 films. She carries her bag. Her dog sees her films. What is Lucy?"
    told = "You watch 5 films. You carry your bag. Your dog sees your films. What are you?"
    assert people.second_person(text, draw).replace("What is you", "What are you") == told
    text = "Dan and Tom have 5 cats. How many cats does Dan have?"
    assert people.first_person(text, draw) == text


def test_tasks() -> None:
    draw = random.Random(0)
    text = "Dan had 5 cats. He sold 2. How many cats did he keep?"
    assert (
        tasks.question_first(text, draw) == "How many cats did he keep? Dan had 5 cats. He sold 2."
    )
    for asked, stated in {
        "How many cats did Dan buy?": "how many cats Dan bought.",
        "How many cats does Dan have now?": "how many cats Dan has now.",
        "how many more cats will they get ?": "how many more cats they will get.",
        "How many cats are there in all?": "how many cats there are in all.",
        "How much is left?": "how much is left.",
    }.items():
        assert tasks.imperative(asked, draw).split(" ", 1)[1].removeprefix("out ") == stated
    assert tasks.imperative("Who has 2 cats?", draw) == "Who has 2 cats?"
    options = tasks.options(text, draw).splitlines()
    assert len(options) == 5
    assert len({digits(option)[0] for option in options[1:4]}) == 3
    assert tasks.options("\n".join(options), draw) == "\n".join(options)
    text = "It costs $5.50, or 6 dollars a mile. How many dollars for 7 miles?"
    for money in (tasks.other_currency, tasks.currency_from_elsewhere):
        paid = money(text, draw)
        assert "$5" not in paid.replace("R$", "")
        assert "dollar" not in paid
        assert money("It costs $5 and 3 quarters.", draw) == "It costs $5 and 3 quarters."
    assert "7 kilometers" in tasks.metric_units(text, draw)
    assert tasks.metric_units("2 miles and 3 feet", draw) == "2 miles and 3 feet"


def test_letters() -> None:
    text = 'Dan\'s "big" box holds 3.5 lbs, 12 eggs. How many are left?'
    draw = random.Random(0)
    assert (
        letters.no_punctuation(text, draw)
        == 'Dan\'s "big" box holds 3.5 lbs 12 eggs How many are left'
    )
    assert letters.no_question_mark(text, draw) == text[:-1]
    assert letters.no_apostrophes(text, draw) == text.replace("'", "")
    assert letters.loud_words(text, draw) == text.replace("How many", "HOW MANY")
    assert (
        letters.curly_quotes(text, draw)
        == "Dan’s “big” box holds 3.5 lbs, 12 eggs. How many are left?"
    )
    assert letters.commas_for_stops(text, draw) == text.replace(". H", ", h")
    for typo in (letters.swapped_letters, letters.missing_letters, letters.neighbouring_keys):
        other = typo(text, draw)
        assert abs(len(other.split()) - len(text.split())) == 0
        assert sum(a != b for a, b in zip(other.split(), text.split(), strict=True)) in (1, 2)
    for seed in range(20):
        # "four" would be another recipe.
        assert letters.missing_letters("flour four", random.Random(seed)) != "four four"
    assert letters.commas_for_stops("Mr. Lee. He", draw) == "Mr. Lee, he"
    assert letters.ellipsis("Mr. Lee ran.", draw).startswith("Mr. Lee ran")
    assert letters.curly_quotes("Sara 's 'big' dog", draw) == "Sara ’s ‘big’ dog"
    for case in (letters.lower_case, letters.upper_case, letters.title_case, letters.random_case):
        assert case(text, draw).lower() == text.lower()
        assert case(r"\frac12", draw) == r"\frac12"


def test_layout() -> None:
    text = "Mr. Lee left at 9 a.m. today. He has 3.5 cats. How many?"
    draw = random.Random(0)
    lines = ["Mr. Lee left at 9 a.m. today.", "He has 3.5 cats.", "How many?"]
    assert layout.line_per_sentence(text, draw).splitlines() == lines
    assert layout.crlf(text, draw) == "\r\n".join(lines)
    assert layout.bullets(text, draw).count("\n") == 2
    assert layout.tokenised("Dan's 3.5 cats, left.", draw) == "Dan 's 3.5 cats , left ."
    assert layout.no_space_after_stop("He has 5. 3 left. How?", draw) == "He has 5. 3 left.How?"
    assert layout.latex_numbers("3.5 of 1,200 cats.", draw) == "$3.5$ of $1,200$ cats."
    assert max(map(len, layout.wrapped(" ".join([text] * 9), draw).splitlines())) <= 72
    for variation in VARIATIONS.values():
        if variation.family in ("layout", "characters"):
            result = of_kind(text, 0, variation)
            assert result is None or re.sub(r"\W", "", result) == re.sub(r"\W", "", text)
