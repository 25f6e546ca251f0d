"""Case, typos and signs: the same words, typed otherwise."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from calibration.rewriting.numbers import NUMBER_WORDS

_WORD = re.compile(r"[^\W\d_]{4,}")  # typos in shorter words may make another word
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: row[max(place - 1, 0) : place] + row[place + 1 : place + 2]
    for row in _KEYS
    for place, key in enumerate(row)
}
# Not the points and commas inside numbers, nor what stands before a digit.
_STOP = re.compile(r"(?<=[\w)\"'’\s])[.,;:!?]+(?=\s|$)")
_END = r"(?<=[^\W_])(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMrs)(?<!\b[ap]\.m) ?\."
_ASKING = re.compile(r"(?<!\?)\?+(?=[\s\"'”’*_`<}]|$)")


def lower_case(text: str, draw: random.Random) -> str:
    return text if "\\" in text else text.lower()  # a LaTeX command is no word


def upper_case(text: str, draw: random.Random) -> str:
    return text if "\\" in text else text.upper()


def title_case(text: str, draw: random.Random) -> str:
    if "\\" in text:
        return text
    return re.sub(r"(?<![\w'’])[^\W\d_]", lambda match: match[0].upper(), text)


def random_case(text: str, draw: random.Random) -> str:
    if "\\" in text:
        return text
    return "".join(c.upper() if draw.random() < 0.5 else c.lower() for c in text)


def loud_words(text: str, draw: random.Random) -> str:
    """What is asked, in capitals; else a word or two."""
    if "\\" in text:
        return text
    loud = re.sub(r"(?i)\bhow (?:many|much)(?: more)?\b", lambda match: match[0].upper(), text)
    return loud if loud != text else _in_words(text, draw, 2, lambda word: word.upper())


def swapped_letters(text: str, draw: random.Random) -> str:
    """Two letters inside a word change places, in one word of ten."""

    def swap(word: str) -> str:
        place = draw.randrange(1, len(word) - 1)
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return _in_words(text, draw, 1 + len(text) // 60, swap)


def missing_letters(text: str, draw: random.Random) -> str:
    """A letter inside a word is left out, in one word of ten."""

    def drop(word: str) -> str:
        place = draw.randrange(1, len(word) - 1)
        return word[:place] + word[place + 1 :]

    return _in_words(text, draw, 1 + len(text) // 60, drop)


def neighbouring_keys(text: str, draw: random.Random) -> str:
    """A letter inside a word becomes one beside it on the keyboard."""

    def slip(word: str) -> str:
        place = draw.randrange(1, len(word))
        keys = _NEIGHBOURS.get(word[place].lower(), word[place])
        return word[:place] + draw.choice(keys) + word[place + 1 :]

    return _in_words(text, draw, 1 + len(text) // 60, slip)


def stretched_letters(text: str, draw: random.Random) -> str:
    """A vowel goes on and on ("sooold"), in one or two words."""

    def stretch(word: str) -> str:
        vowels = [place for place, letter in enumerate(word) if letter in "aeiouAEIOU"]
        if not vowels:
            return word
        place = draw.choice(vowels)
        return word[:place] + word[place] * draw.randint(2, 4) + word[place:]

    return _in_words(text, draw, 2, stretch)


def no_apostrophes(text: str, draw: random.Random) -> str:
    return re.sub(r"(?<=[^\W\d_])['’](?=[^\W\d_])", "", text)


def no_question_mark(text: str, draw: random.Random) -> str:
    return _ASKING.sub("", text)


def no_punctuation(text: str, draw: random.Random) -> str:
    return _STOP.sub("", text)


def double_question_mark(text: str, draw: random.Random) -> str:
    return _ASKING.sub(draw.choice(["??", "???"]), text)


def ellipsis(text: str, draw: random.Random) -> str:
    """Sentences trail off."""
    dots = draw.choice(["...", "..", "…"])
    return re.sub(rf"{_END}(?=\s|$)", dots, text)


def commas_for_stops(text: str, draw: random.Random) -> str:
    """One long sentence, as people type in a hurry."""
    return re.sub(rf"{_END}(\s+)(\S)(?![A-Z])", lambda m: f",{m[1]}{m[2].lower()}", text)


def no_break_space(text: str, draw: random.Random) -> str:
    """Between a number and what it counts, as word processors write; else everywhere."""
    some = re.sub(r"(?<=\d) (?=\w)", "\u00a0", text)
    return some if some != text else text.replace(" ", "\u00a0")


def zero_width_space(text: str, draw: random.Random) -> str:
    """Beside some of the spaces, as web pages have them."""
    return re.sub(r" (?=\S)", lambda match: " \u200b" if draw.random() < 0.3 else " ", text)


def byte_order_mark(text: str, draw: random.Random) -> str:
    return text if text.startswith("\ufeff") else "\ufeff" + text


def curly_quotes(text: str, draw: random.Random) -> str:
    """The quotation marks and apostrophes of a word processor; not those of feet and inches."""
    text = re.sub(r"'(?=s\b)", "’", text)  # apart from its word in old data sets
    text = re.sub(r"(?<!\w)'(?=\w)", "‘", text)
    text = re.sub(r"(?<=[^\W\d_])'", "’", text)
    text = re.sub(r'(?<!\w)"(?=\w)', "“", text)
    return re.sub(r'(?<=[^\W\d_]|[.?!])"', "”", text)


def full_width_signs(text: str, draw: random.Random) -> str:
    """The stops of East Asian keyboards."""
    wide = {"?": "？", "!": "！", ",": "，", ";": "；", ":": "："}
    return re.sub(r"[?!,;:](?=\s|$)", lambda match: wide[match[0]], text)


def _in_words(text: str, draw: random.Random, n: int, change: Callable[[str], str]) -> str:
    """Change `n` of the words of plain letters, or as many as there are; no numbers.

    A word that would become a number ("flour") stays, as do the words of a text with LaTeX.
    """
    words = [
        match
        for match in ([] if "\\" in text else _WORD.finditer(text))
        if match[0].lower() not in NUMBER_WORDS
    ]
    for match in sorted(draw.sample(words, min(n, len(words))), key=lambda m: -m.start()):
        changed = change(match[0])
        if changed.lower() not in NUMBER_WORDS:
            text = text[: match.start()] + changed + text[match.end() :]
    return text
