"""Numbers as digits, words, or both: the same values."""

from __future__ import annotations

import random
import re

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()

# A whole number that stands alone: no part of a price, fraction, decimal, time, sign or name.
_WHOLE = re.compile(
    r"(?<![\w$€£₹¥.,/:^+*=#\\-])(?<![$€£₹¥\d] )[0-9]{1,4}(?! ?[0-9]|[\w%°^+*=/\\-]|[.,:]\d| ?%)"
)
_LONG = re.compile(r"(?<![\w.,/:^\\-])[0-9]{4,15}(?![\w/:^-]|,\d)")
# Before a year.
_YEAR = re.compile(r"(?i)\b(?:in|since|until|by|year|from|of|before|after)\s+$")


def spelled(n: int) -> str:
    """A number from 0 to 9999 in words."""
    if n < 20:
        return _SMALL[n]
    if n < 100:
        tens, ones = divmod(n, 10)
        return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")
    size, word = (1000, "thousand") if n >= 1000 else (100, "hundred")
    many, rest = divmod(n, size)
    joint = " and " if 0 < rest < 100 else " "
    return f"{_SMALL[many]} {word}" + (joint + spelled(rest) if rest else "")


_VALUES = {spelled(n): n for n in range(2, 100)}  # "one" is as often no number
_OTHERS = (
    "hundred thousand million billion dozen twice half halves third fourth fifth sixth eighth tenth"
).split()
NUMBER_WORDS = frozenset(_SMALL + _TENS + _OTHERS)
_PART = f"(?:{'|'.join(sorted(NUMBER_WORDS, key=len, reverse=True))})s?"
# Words that make one number together, or with a fraction.
_RUN = re.compile(rf"(?i)(?<![\w-]){_PART}(?:(?:\s+and\s+|\s+|-){_PART})*(?![\w-])")


def number_words(text: str, draw: random.Random) -> str:
    """Digits to words, with a capital at the start of a sentence."""

    def word(match: re.Match[str]) -> str:
        if match[0].startswith("0") or _is_year(match):
            return match[0]
        written = spelled(int(match[0]))
        starts = re.search(r"(?:^|[.?!]\s+)$", text[max(match.start() - 4, 0) : match.start()])
        return written.capitalize() if starts else written

    return _WHOLE.sub(word, text)


def digits(text: str, draw: random.Random) -> str:
    """Words to digits, from two to ninety-nine."""
    return _RUN.sub(lambda match: str(_VALUES.get(match[0].lower(), match[0])), text)


def number_twice(text: str, draw: random.Random) -> str:
    """As contracts have them: 5 (five), or five (5)."""
    word_first = draw.random() < 0.5

    def both(match: re.Match[str]) -> str:
        if match[0].startswith("0") or _is_year(match):
            return match[0]
        written = spelled(int(match[0]))
        return f"{written} ({match[0]})" if word_first else f"{match[0]} ({written})"

    return _WHOLE.sub(both, text)


def thousands_comma(text: str, draw: random.Random) -> str:
    return _grouped(text, ",")


def thousands_space(text: str, draw: random.Random) -> str:
    """With a space or an apostrophe, as outside English."""
    mark = draw.choice([" ", "\u202f", "'"])
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", mark, text)
    return _grouped(text, mark)


def _grouped(text: str, mark: str) -> str:
    def group(match: re.Match[str]) -> str:
        if match[0].startswith("0") or _is_year(match):
            return match[0]
        return f"{int(match[0]):,}".replace(",", mark)

    return _LONG.sub(group, text)


def _is_year(match: re.Match[str]) -> bool:
    before = match.string[max(match.start() - 12, 0) : match.start()]
    return len(match[0]) == 4 and match[0][:2] in ("18", "19", "20") and bool(_YEAR.search(before))
