"""Variations: task and facts stay, a seed always gives the same text, and no text breaks them."""

import pickle
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.generate import generate
from calibration.rewriting.phrases import read_phrases
from calibration.variations import Variation, of_kind, read_variations, vary
from detector.errors import QuestionsError

ROOT = Path(__file__).parents[2]
VARIATIONS = read_variations()
ALL = list(VARIATIONS.values())
PROBLEMS = [question for question, _ in generate(40, seed=3)] + [
    "Dan's shop sells 1200 mugs for $3.50 each, 12 a box. How many dollars does Dan get?",
    "Sara 's team won 5 games . she lost 3,000 points . How many games did she win ? ",
    "Mary walked 3 miles and ate 2 pounds of candy. How many miles did she walk?",
    "Twelve boys share thirty-six cookies with their mom. How many does each get?",
]
# What writes numbers in other forms, or other numbers beside them.
OTHER_DIGITS = {"number-words", "digits", "number-twice", "thousands-comma", "thousands-space"}
MORE_DIGITS = {"options", "several", "label", "chatter", "framing", "instruction"}
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="aA 1,.?!\"'$\\{}\n\té🙏", max_size=200),
    st.sampled_from(PROBLEMS),
    st.lists(
        st.sampled_from([*"?.,!:;$ \n", "Dan", "her", "he has", "12", "1,000", "two hundred"])
    ).map(" ".join),
)
KINDS = st.sampled_from(ALL)
SEEDS = st.integers(0, 2**64)


def digits(text: str) -> list[str]:
    return re.findall(r"\d+", text)


@given(TEXTS, SEEDS, KINDS)
def test_any_text_is_rewritten_or_none_and_always_alike(
    text: str, seed: int, variation: Variation
) -> None:
    result = of_kind(text, seed, variation)
    assert result == of_kind(text, seed, variation)
    assert result != text
    assert result is None or result.strip()
    if not text.strip():
        assert result is None


@pytest.mark.parametrize("name", VARIATIONS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "?",
        "\ud800",
        "🙏" * 10,
        "x" * 10_000,
        "9" * 10_000,
        "?" * 10_000 + "x",
        ". " * 5_000,
        " " * 10_000 + "x",
        "Dan has 2 x " * 900,
        r"\frac{1}{2} of $x$?",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_no_text_breaks_a_variation(name: str, text: str) -> None:
    assert of_kind(text, 1, VARIATIONS[name]) != text


@pytest.mark.parametrize("name", VARIATIONS)
def test_numbers_keep_their_value(name: str) -> None:
    variation = VARIATIONS[name]
    applied = 0
    for seed, question in enumerate(PROBLEMS):
        result = of_kind(question, seed, variation)
        if result is None or name in OTHER_DIGITS:
            applied += result is not None
            continue
        applied += 1
        before, after = digits(question), digits(result)
        if variation.family in MORE_DIGITS:
            # What is added stands before or after the question's own, in their order.
            runs = [after[n : n + len(before)] for n in range(len(after) - len(before) + 1)]
            assert before in runs, result
        elif name == "question-first":
            assert Counter(before) == Counter(after), result
        else:
            assert before == after, result
    assert applied


@given(TEXTS, SEEDS, st.integers(0, 6), st.lists(KINDS, unique_by=lambda v: v.name))
def test_composed_variations_are_of_different_families(
    text: str, seed: int, n: int, some: list[Variation]
) -> None:
    result, names = vary(text, seed, some, n)
    assert (result, names) == vary(text, seed, some, n)
    families = [VARIATIONS[name].family for name in names]
    assert len(set(families)) == len(families) <= n
    assert {*names} <= {variation.name for variation in some}
    if not names:
        assert result == text
    if len(some) == 1 and n:
        assert result == (of_kind(text, seed, some[0]) or text)


def test_as_many_are_composed_as_are_asked_for_and_apply() -> None:
    for seed, question in enumerate(PROBLEMS):
        for n in range(5):
            assert len(vary(question, seed, ALL, n)[1]) == n
    assert vary("", 0, ALL, 3) == ("", ())
    drawn = {name for seed in range(400) for name in vary(PROBLEMS[-2], seed, ALL, 3)[1]}
    assert len(drawn) > 60


def test_content_comes_first_then_what_is_around_then_how_it_is_typed() -> None:
    names = ["upper-case", "greeting", "bold", "question-label", "crlf", "number-words"]
    text, applied = vary("Dan has 5 cats. How many?", 4, [VARIATIONS[x] for x in names], 6)
    assert applied == ("number-words", "bold", "question-label", "greeting", "crlf", "upper-case")
    assert "FIVE" in text
    assert text == text.upper()


def test_another_variation_moves_none() -> None:
    one = VARIATIONS["swapped-letters"]
    alone = of_kind(PROBLEMS[0], 5, one)
    assert (alone, ("swapped-letters",)) == vary(PROBLEMS[0], 5, [one], 1)
    assert of_kind(PROBLEMS[0], 6, one) != alone


def test_a_third_is_held_out_and_has_calibrated_relatives() -> None:
    held_out = [variation for variation in ALL if variation.held_out]
    assert 1 / 4 < len(held_out) / len(ALL) < 0.4
    calibrated = {variation.family for variation in ALL if not variation.held_out}
    assert {variation.family for variation in held_out} <= calibrated
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in VARIATIONS)
    assert all(name == variation.name for name, variation in VARIATIONS.items())


def test_no_phrase_is_in_two_kinds() -> None:
    kinds = read_phrases(ROOT / "calibration" / "variations.toml")
    phrases = [
        phrase
        for kind in kinds
        for phrase in {text.lower() for text in kind.before + kind.after + kind.around}
    ]
    assert len(phrases) == len(set(phrases)) > 1200
    for kind in kinds:
        assert kind.replace or len(kind.before + kind.after + kind.around) >= 10, kind.name
        assert len(set(kind.companions)) == 60
        if not (kind.held_out or kind.replace):
            assert len(kind.before + kind.after + kind.around) >= 30, kind.name


def test_variations_are_pickled() -> None:
    """So that processes may share the work."""
    for variation in ALL:
        copy = pickle.loads(pickle.dumps(variation))
        assert of_kind(PROBLEMS[0], 1, copy) == of_kind(PROBLEMS[0], 1, variation)


FILE = """
[[variation]]
name = "pirate"
family = "voice"
held_out = true
before = ["Arr!"]
replace = [{ pattern = "\\\\b(my) (dog|cat)\\\\b", with = ["me \\\\2"] }]

[[variation]]
name = "pair"
family = "several"
around = ["{companion} / {question}"]
"""


def test_a_file_adds_variations(tmp_path: Path) -> None:
    path = tmp_path / "more.toml"
    path.write_text(FILE)
    variations = read_variations(path)
    assert variations.keys() == VARIATIONS.keys() | {"pirate", "pair"}
    pirate = variations["pirate"]
    assert (pirate.family, pirate.held_out) == ("voice", True)
    assert (
        of_kind("My dog and my cat?", 0, pirate) or ""
    ).split() == "Arr! Me dog and me cat?".split()
    pair = of_kind("And 2?", 0, variations["pair"]) or ""
    companions = read_phrases(ROOT / "calibration" / "variations.toml")[0].companions
    assert pair.removesuffix(" / And 2?") in companions
    text, names = vary("My dog?", 0, [variations[x] for x in ("upper-case", "pirate", "pair")], 3)
    assert names == ("pair", "pirate", "upper-case")
    assert text.startswith("ARR!")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no variation: write"),
        ("a = 1\na = 2", "not TOML (Cannot"),
        (b"\xff", "not UTF-8 at byte 0"),
        ("other = 1", "has 'other': write companions"),
        ("variation = [1]", "variation 1: no table"),
        ("companions = 1", "'companions' is no list"),
        ("[[variation]]\nname = 'A b'", "variation 1: 'name' is 'A b': write words-like-these"),
        ("[[variation]]\nname = 'a'", "'family' is None"),
        ("{head}held_out = 1", "'held_out' is 1: write true or false"),
        ("{head}", "it has no phrases: write before, after, around or replace"),
        ("{head}befor = ['x']", "'befor' is unknown: use name"),
        ("{head}before = []", "'before' is no list"),
        ("{head}after = [' ']", "'after' has what is blank"),
        ("{head}around = ['x']", "'around' has a text without one {question}"),
        ("companions = ['x']\n{head}around = ['{question}{companion}{companion}']", "add to"),
        ("{head}replace = 1", "'replace' is no list"),
        ("{head}replace = [{pattern = 'a'}]", "'replace' has other than pattern and with"),
        ("{head}replace = [{pattern = '(', with = ['a']}]", "no regular expression"),
        ("{head}replace = [{pattern = 1, with = ['a']}]", "no regular expression"),
        ("{head}replace = [{pattern = 'a', with = ['\\1']}]", "no regular expression"),
        ("{head}replace = [{pattern = 'a', with = [1]}]", "'with' has what is blank or no text"),
        ("{head}after = ['x']\n{head}after = ['y']", "the name 'a' is taken: choose another"),
        ("[[variation]]\nname='bold'\nfamily='a'\nafter=['x']", "the name 'bold' is taken"),
    ],
)
def test_errors_name_the_thing_its_value_and_the_fix(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "wrong.toml"
    head = "[[variation]]\nname = 'a'\nfamily = 'b'\n"
    if isinstance(content, str):
        content = content.replace("{head}", head).encode()
    path.write_bytes(content)
    with pytest.raises(QuestionsError) as caught:
        read_variations(path)
    assert caught.value.param == "variations"
    assert caught.value.message.startswith(f"variations file {str(path)!r}")
    assert message in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuestionsError, match=r"none\.toml' cannot be read \(.*check the path"):
        read_variations(tmp_path / "none.toml")
