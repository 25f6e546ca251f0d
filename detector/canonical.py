r"""Canonical text: one way of writing for all ways in which the same words are typed.

What a question asks does not change with line breaks, curly quotes, bold type or capitals, and
the states of a model do. So a question is judged as `canonical` writes it. Ordinary sentences are
left as they are; what is undone is layout, marks and case, never a word, a number or a formula:

    "**2 birds SAT** on a fence ."     ->  "2 birds SAT on a fence."
    "how many are\u00a0left"           ->  "How many are left?"
    "MIA HAS $4$ PENS.\nIS IT ODD??"   ->  "Mia has 4 pens. Is it odd?"

Pure, idempotent, and versioned: an artifact names the version that it was calibrated with.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

TextVersion = Literal["canonical/1", "typed"]
"""How a text is written to be judged: by a version of `canonical`, or as it was typed."""

CANONICAL: Final = "canonical/1"
"""The version. Whatever changes `canonical` for any text changes this."""

_SAME = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        "\u2026": "...",
    }
)
_ASKING = (
    "how what which who whose whom when where why is are was were do does did can could will would "
    "should has have had may"
).split()

_FENCE = re.compile(r"^\s*(```|~~~)[^\n]*$", re.MULTILINE)
_LINE_MARK = re.compile(r"^\s*(?:#{1,6}\s+|>\s?|[-*+\u2022]\s+(?=\S))", re.MULTILINE)
_TAG = re.compile(r"</?[a-zA-Z][\w-]*\s*/?>")
# Marks around words, so that "2*3*4", "2 ** 3" and snake_case stay what they are.
_EMPHASIS = re.compile(
    r"(?<![\w*_])(\*{1,3}|_{1,3}|~~)(?=[^\s*_])(.+?)(?<=[^\s*_])\1(?![\w*_])", re.DOTALL
)
_MATH_NUMBER = re.compile(r"(?<![\w$\\])\$\s*(\d[\d.,]*)\s*\$(?![\w$])|\\\(\s*(\d[\d.,]*)\s*\\\)")
_BEFORE_STOP = re.compile(r"(?<=[\w)\"'%]) +([.,;:?!]+)(?= |$|[\"')])")
_SENTENCE = re.compile(r"(?:^|(?<=[.?!] )|(?<=[.?!][\"')] ))[\"'(]?[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]{2,}")
_CAPITAL_INSIDE = re.compile(r"[a-z][A-Z]")
_MANY_STOPS = re.compile(r"([?!])[?!]+")


def canonical(text: str) -> str:
    """The text as it is judged. See the module's docstring."""
    text = "".join(map(_plain_character, text))
    text = _FENCE.sub("\n", text.replace("\r", "\n"))
    text = _LINE_MARK.sub("", text)
    text = _TAG.sub(" ", text)
    text = text.translate(_SAME)
    text = _unwrapped(_EMPHASIS, text)
    text = _MATH_NUMBER.sub(lambda found: found[1] or found[2], text.replace("\\$", "$"))
    text = " ".join(text.split())
    text = _BEFORE_STOP.sub(r"\1", text)
    text = _MANY_STOPS.sub(r"\1", text)
    text = _unquoted(text)
    if _shouts(text):
        text = text.lower()
    text = _SENTENCE.sub(lambda found: found[0].upper(), text)
    return _ended(text)


def _plain_character(character: str) -> str:
    """Without marks that nobody sees, and of one width."""
    if character.isascii():
        return character
    if unicodedata.category(character) == "Cf":
        return ""
    if unicodedata.decomposition(character).startswith(("<wide>", "<narrow>", "<noBreak>")):
        return unicodedata.normalize("NFKC", character)
    return character


def _unwrapped(marks: re.Pattern[str], text: str) -> str:
    """Marks inside marks too."""
    while (inner := marks.sub(r"\2", text)) != text:
        text = inner
    return text


def _unquoted(text: str) -> str:
    """Without quotation marks around all of it."""
    while len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":
        inner = text[1:-1].strip()
        if text[0] in inner:
            break
        text = inner
    return text


def _shouts(text: str) -> bool:
    """Whether capitals say nothing here: in ALL CAPS, Title Case or rANdoM caSe."""
    letters = [character for character in text if character.isalpha()]
    if sum(map(str.isupper, letters)) > 0.7 * len(letters):
        return len(letters) > 3
    words = _WORD.findall(text)
    if len(words) < 6:
        return False
    inside = sum(_CAPITAL_INSIDE.search(word) is not None for word in words)
    first = sum(word[0].isupper() for word in words)
    return inside > 0.25 * len(words) or first > 0.75 * len(words)


def _ended(text: str) -> str:
    """With a mark at the end of the last sentence, if that ends in a word."""
    if not (text and text[-1].isalnum() and " " in text and _WORD.search(text)):
        return text
    last = re.split(r"[.?!] ", text)[-1].lower()
    asks = last.split()[0] in _ASKING or "how many" in last or "how much" in last
    return text + ("?" if asks else ".")
