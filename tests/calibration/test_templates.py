"""Templates: found again in files that were made from some, and not seen where there are none."""

import random
from collections import Counter

import pytest

from calibration.generate import generate
from calibration.masking import mask
from calibration.templates import templates_of
from tests.calibration.customs import N_FORMS, customs


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("What is 3 + 4?", "what is #"),
        ("She pays $1,250.50, then 5 % or twenty-one euros", "she pay # then # or #"),
        ("Was Ann in South Korea?", "was @ in @"),
        ("Did Mr. Lee see dr lee on monday?", "did @ see @ on @"),
        ("A box has 7 shells. How many shell?", "a box has # * how many *"),
        ("Solve for x: 2y = x", "solve for @ # @"),
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
