"""Templates: found again in files that were made from some, and not seen where there are none."""

import random
from collections import Counter
from typing import get_args

import pytest

from calibration.generate import generate
from calibration.masking import mask
from calibration.questions import Split, key_of, split_of
from calibration.templates import split_templates, splits_and_templates, templates_of
from tests.calibration.customs import N_FORMS, customs


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("What is 3 + 4?", "what is # + #"),
        ("She pays $1,250.50, then 5 % or twenty-one euros", "she pay # then # or #"),
        ("Was Ann in South Korea?", "was @ in @"),
        ("Did Mr. Lee see dr lee on monday?", "did @ see @ on @"),
        ("A box has 7 shells. How many shell?", "a box has # * how many *"),
        ("Solve for x: 2y = x", "solve for @ # = @"),
        ("345 + 1 = __", "### + # = @"),
        ("A two-storey house for $5-$10 (or 4/5)?", "a # storey house for # - # or # / #"),
        ("", ""),
    ],
)
def test_masks(text: str, masked: str) -> None:
    others = ["I met Ann and Lee in Korea and in the South", "We ask Ann of South Korea"]
    assert " ".join(mask([text, *others])[0]) == masked


def test_names_are_names_wherever_they_stand() -> None:
    """At a sentence's start, and in texts of one case, they look like any other word."""
    texts = [
        "If Okafor has 3",
        "Okafor has 5",
        "if okafor has 4",
        "IF OKAFOR HAS 7",
        "Okafor Has 6",
    ]
    masked = [" ".join(words) for words in mask(texts)]
    assert masked == ["if @ has #", "@ has #", "if @ has #", "if @ has #", "@ has #"]


def test_customs_questions_are_of_the_templates_they_were_made_from() -> None:
    texts, forms = customs(n_each=40, seed=0)
    labels = templates_of(texts)
    # One to one: no template is split, no two are one.
    assert len(set(zip(labels, forms, strict=True))) == len(set(labels)) == N_FORMS


@pytest.mark.parametrize("seed", range(1, 6))
def test_small_customs_files_are_nearly_as_well_told_apart(seed: int) -> None:
    """With four questions of each, some names stand at no place that shows them as names."""
    texts, forms = customs(n_each=4, seed=seed)
    labels = templates_of(texts)
    assert N_FORMS <= len(set(labels)) <= N_FORMS + 2
    assert len(set(zip(labels, forms, strict=True))) == len(set(labels))


def test_formulas_are_of_many_templates() -> None:
    """They have no words, or the same few."""
    draw = random.Random(0)
    formulas = [
        f"{draw.randint(1, 10**a)} {sign} {draw.randint(1, 10**b)}"
        for sign in "+-*/"
        for a in range(1, 4)
        for b in range(1, 4)
        for _ in range(20)
    ]
    assert len(set(templates_of(formulas))) > 20
    assert max(Counter(templates_of(formulas)).values()) < 50
    asked = [f"What is {formula}?" for formula in formulas]
    assert sorted(Counter(templates_of(asked)).values()) == [180] * 4


def test_generated_questions_are_of_as_many_templates_as_there_are_sentence_forms() -> None:
    labels = templates_of([question for question, _ in generate(1500, seed=0)])
    assert len(set(labels)) == 15


def test_labels_are_first_places_and_do_not_depend_on_the_order() -> None:
    texts = [question for question, _ in generate(300, seed=1)]
    labels = templates_of(texts)
    assert all(labels[label] == label <= place for place, label in enumerate(labels))
    order = list(range(len(texts)))
    random.Random(0).shuffle(order)
    shuffled = templates_of([texts[place] for place in order])
    pairs = {(labels[place], label) for place, label in zip(order, shuffled, strict=True)}
    assert len(pairs) == len(set(labels)) == len(set(shuffled))


def test_spacing_case_hyphens_and_punctuation_do_not_count() -> None:
    text = "A two-storey house of the Ngata family has 12 rooms. How many windows does it need?"
    copies = [
        text,
        "  a TWO storey house, of the ngata family: has 7 rooms; how many windows does it need",
        text.upper(),
        text.replace("two-storey", "two\N{EN DASH}storey"),
    ]
    assert templates_of(copies) == [0, 0, 0, 0]


def test_a_chain_of_near_copies_is_not_one_template() -> None:
    """Each text has 16 of its neighbour's 20 words, the first and the last have none alike."""
    words = [a + b for a in "bcdfghjklm" for b in ("ane", "ome", "ule", "ire", "epe", "ant")]
    texts = [" ".join(words[start : start + 20]) for start in range(0, 41, 4)]
    labels = templates_of(texts)
    assert 2 < len(set(labels)) < len(texts)
    assert max(Counter(labels).values()) <= 3


def test_nothing_and_texts_without_words() -> None:
    assert templates_of([]) == []
    assert templates_of(["?", "How so?", ""]) == [0, 1, 0]


def split_texts(keys: list[str], texts: list[str]) -> list[Split]:
    splits, _ = splits_and_templates(dict(zip(keys, texts, strict=True)))
    return [splits[key] for key in keys]


def keys_of(texts: list[str]) -> list[str]:
    return [key_of([{"role": "user", "content": text}]) for text in texts]


def shares(splits: list[Split]) -> list[float]:
    return [splits.count(split) / len(splits) for split in get_args(Split)]


def straddling(splits: list[Split], templates: list[int]) -> int:
    return len(set(zip(splits, templates, strict=True))) - len(set(templates))


def test_no_template_straddles_two_splits_and_few_large_ones_keep_the_shares() -> None:
    texts, forms = customs(n_each=40, seed=0)
    splits = split_texts(keys_of(texts), texts)
    assert straddling(splits, forms) == 0
    assert shares(splits) == [0.5, 0.3, 0.2]


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_templates_of_all_sizes(seed: int) -> None:
    """Sizes fall off like 1/rank: the largest has an eighth of the rows, hundreds have one."""
    draw = random.Random(seed)
    templates = [rank for rank in range(1, 500) for _ in range(max(300 // rank, 1))]
    keys = [f"{draw.getrandbits(64):016x}" for _ in templates]
    splits = split_templates(keys, templates)
    assert straddling(splits, templates) == 0
    # The large ones leave every split some rows to fill, which the rest fills by its hashes:
    # 1,400 rows in templates of up to 42, a standard deviation below sqrt(0.25 * sum of squared
    # sizes) = 0.5 * sqrt(300^2 * (1/7 - 1/300) + 349) = 57 of 2,100 rows; times 3.
    assert shares(splits) == pytest.approx([0.5, 0.3, 0.2], abs=0.08)


def test_questions_without_near_copies_are_split_as_without_templates() -> None:
    draw = random.Random(0)
    keys = [f"{draw.getrandbits(64):016x}" for _ in range(1000)]
    assert split_templates(keys, range(1000)) == [split_of(key) for key in keys]
    assert split_templates([], []) == []


def test_one_large_template_leaves_the_rest_what_it_leaves() -> None:
    draw = random.Random(0)
    keys = [f"{draw.getrandbits(64):016x}" for _ in range(4000)]
    templates = [0] * 1200 + list(range(1200, 4000))
    splits = split_templates(keys, templates)
    assert set(splits[:1200]) == {"fit"}
    # 2,800 single rows: a standard deviation below sqrt(0.25 * 2800) / 4000 = 0.0066; times 4.
    assert shares(splits) == pytest.approx([0.5, 0.3, 0.2], abs=0.027)
    # A template of all is in one split, and nothing is left to deal.
    assert set(split_templates(keys, [0] * 4000)) == {"fit"}


def test_splits_do_not_depend_on_the_order() -> None:
    texts = [question for question, _ in generate(600, seed=2)] + customs(3, seed=1)[0]
    splits = dict(zip(texts, split_texts(keys_of(texts), texts), strict=True))
    shuffled = random.Random(0).sample(texts, len(texts))
    assert dict(zip(shuffled, split_texts(keys_of(shuffled), shuffled), strict=True)) == (splits)


def test_few_questions_move_when_some_are_added() -> None:
    draw = random.Random(0)
    templates = [template for template in range(1000) for _ in range(1 + template % 5)]
    keys = [f"{draw.getrandbits(64):016x}" for _ in templates]
    before = split_templates(keys, templates)
    more = [f"{draw.getrandbits(64):016x}" for _ in range(100)]
    after = split_templates(keys + more, [*templates, *range(0, 1000, 10)])
    moved = sum(was != now for was, now in zip(before, after, strict=False))
    # 100 templates of one row gain another: half of them get another representative, which lies
    # in another split with probability 1 - (0.25 + 0.09 + 0.04) = 0.62: 31 rows, with a standard
    # deviation of sqrt(100 * 0.31 * 0.69) = 4.6.
    assert moved <= 31 + 4 * 5


def test_copies_of_a_question_share_a_split_whatever_their_templates() -> None:
    keys = ["0" * 8 + "a" * 8, "0" * 8 + "b" * 8, "f" * 8 + "c" * 8, "1" * 16]
    splits = split_templates(keys, [0, 1, 1, 3])
    assert len(set(splits[:3])) == 1
