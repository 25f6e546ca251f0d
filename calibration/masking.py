"""What remains of questions once numbers, names and what they are about are masked.

Two questions that were made from one template with other numbers, names and goods have the
same masked words, or nearly. Spacing, case, hyphens and punctuation never count: masks are made
of the words that `questions.key_of` hashes for the split, and of the signs of formulas: "3 + 4" and
"12 / 5" are two templates. Where there is no word, a number counts by its number of digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

NUMBER, NAME, TOPIC = "#", "@", "*"

_NUMBER_WORDS = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty "
    "ninety hundred thousand million billion dozen once twice thrice half halves third thirds "
    "quarter quarters double triple "
    # What stands beside a number, written by one and left out by the next.
    "percent dollar dollars cent cents euro euros pound pounds usd eur gbp".split()
)
_KNOWN_NAMES = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday january february april june july "
    "august september october november december".split()
)
_TITLES = frozenset("mr mrs ms miss dr prof professor sir madam".split())
# Single letters that are words, or what an apostrophe leaves of one; others name variables.
_WORDS_OF_ONE_LETTER = frozenset("aidmst")

_WORDS_AND_ENDS = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[.?!:;\n\"\u201c]"
)
_WORDS_AND_SIGNS = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[-+*/^=<>()?\u00d7\u00f7\u221a\u25a1\u2212]"
)
_OPERANDS = frozenset("()?\u25a1")
_MANY_CAPITALS = 0.5


def mask(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The masked words of each text.

    Numbers in digits or words, with their currency, are one sign, names another. A word that is
    no function word and comes more than once in a question is what that question is about, and a
    third: "How many apples does she have?" asks after apples that were spoken of before. Signs
    that follow each other are one, so that a name of two words is a name.
    """
    names = _names(texts)
    return [_masked(text, names) for text in texts]


def _names(texts: Sequence[str]) -> frozenset[str]:
    """Words that these texts capitalise inside sentences at least as often as they do not.

    Of all the texts together, because a name at a sentence's start, or in a text all in small
    letters, looks like any other word. Titles and shouted texts, where most words have a
    capital, say nothing.
    """
    capital: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for text in texts:
        inside: list[str] = []
        starts = True
        for found in _WORDS_AND_ENDS.findall(text):
            is_word = found[0].isalnum()
            # The dot of "Mr. Lee" ends no sentence.
            if is_word and not starts:
                inside.append(found)
            starts = not is_word and not (inside and inside[-1].lower() in _TITLES)
        capitals = [word.lower() for word in inside if word[0].isupper()]
        small.update(word for word in inside if word[0].islower())
        if len(capitals) <= _MANY_CAPITALS * len(inside):
            capital.update(capitals)
    common = {word for word, count in capital.items() if count < small[word]}
    return frozenset(capital.keys() - common - ENGLISH_STOP_WORDS) | _KNOWN_NAMES | _TITLES


def _masked(text: str, names: frozenset[str]) -> tuple[str, ...]:
    found = _WORDS_AND_SIGNS.findall(text.lower())
    words = [_singular(word) for word in found if _is_word(word)]
    counts = Counter(words)
    masked: list[str] = []
    digits: list[str] = []
    for place, written in enumerate(found):
        if not _is_word(written):
            if _joins(found, place):
                masked.append(written)
                digits.append(written)
            continue
        word = _singular(written)
        if word[0].isdigit() or word in _NUMBER_WORDS:
            sign = NUMBER
        elif word in names or _is_variable(word) or not word.strip("_"):
            sign = NAME
        elif len(word) > 1 and counts[word] > 1 and word not in ENGLISH_STOP_WORDS:
            sign = TOPIC
        else:
            sign = word
        digits.append(sign * len(word) if sign == NUMBER else sign)
        if sign == word or masked[-1:] != [sign]:
            masked.append(sign)
    no_words = all(sign in (NUMBER, NAME) or not _is_word(sign) for sign in masked)
    return tuple(digits if no_words else masked)


def _is_word(found: str) -> bool:
    return found[0].isalnum() or found[0] == "_"


def _joins(found: Sequence[str], place: int) -> bool:
    """Whether a sign stands in a formula: one of its neighbours is a number or a variable, and the
    other one too, or a bracket, a gap or nothing. A hyphen between words does not.
    """
    if found[place] in _OPERANDS:
        return False
    sides = (found[place - 1 : place], found[place + 1 : place + 2])
    operands = [not side or side[0] in _OPERANDS or _is_operand(side[0]) for side in sides]
    return all(operands) and any(side and _is_operand(side[0]) for side in sides)


def _is_operand(found: str) -> bool:
    return found[0].isdigit() or _is_variable(found) or not found.strip("_")


def _is_variable(word: str) -> bool:
    return len(word) == 1 and word.isascii() and word.isalnum() and word not in _WORDS_OF_ONE_LETTER


def _singular(word: str) -> str:
    """Enough for a thing and things to be one word, as in "7 shells ... how many shell"."""
    if len(word) < 4 or word in ENGLISH_STOP_WORDS or word.endswith("ss"):
        return word
    word = re.sub(r"ies$", "y", word)
    return re.sub(r"(?<=[sxh])es$|s$", "", word)
