"""Rewritings that are phrases, read from TOML: before, after and around a question, and in place
of its words. `variations.toml` says what such a file holds.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detector.errors import QuestionsError

_SORTS = ("before", "after", "around", "replace")
_NAME = re.compile(r"[a-z\d]+(?:-[a-z\d]+)*")
_PLACES = re.compile(r"(\{question\}|\{companion\})")

Replacement = tuple[re.Pattern[str], tuple[str, ...]]
_Error = Callable[[str], QuestionsError]


@dataclass(frozen=True)
class Phrases:
    """One kind of a file: of each sort of phrases that it has, one is drawn."""

    name: str
    family: str
    held_out: bool
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    replace: tuple[Replacement, ...] = ()
    companions: tuple[str, ...] = ()

    def rewrite(self, text: str, draw: random.Random) -> str:
        for pattern, replacements in self.replace:
            text = pattern.sub(partial(_replaced, draw, replacements), text)
        if self.around:
            text = self._surrounded(text, draw)
        # What has lines of its own stands apart.
        joint = draw.choice(["\n", "\n\n"]) if "\n" in text.strip() else draw.choice(" \n")
        if self.before:
            text = draw.choice(self.before) + joint + text.lstrip()
        if self.after:
            text = text.rstrip() + joint + draw.choice(self.after)
        return text

    def _surrounded(self, text: str, draw: random.Random) -> str:
        parts = _PLACES.split(draw.choice(self.around))
        others = [other for other in self.companions if other not in text]
        if parts.count("{companion}") > len(others):
            return text
        companions = iter(draw.sample(others, parts.count("{companion}")))
        for place, part in enumerate(parts):
            if part == "{question}":
                parts[place] = text.strip()
            elif part == "{companion}":
                parts[place] = next(companions)
        return "".join(parts)


def read_phrases(path: Path, companions: tuple[str, ...] = ()) -> list[Phrases]:
    """The kinds of a file; `companions` are for a file without its own.

    Raises QuestionsError naming the file, and the number of the variation where there is one.
    """

    def error(what: str) -> QuestionsError:
        return QuestionsError(f"variations file {str(path)!r}{what}", param="variations")

    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as wrong:
        raise error(f" cannot be read ({wrong.strerror}): check the path") from None
    except UnicodeDecodeError as wrong:
        raise error(f": not UTF-8 at byte {wrong.start}: save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as wrong:
        raise error(f": not TOML ({wrong}): fix the line") from None
    for name in table.keys() - {"companions", "variation"}:
        raise error(f" has {name!r}: write companions and [[variation]] alone")
    if "companions" in table:
        companions = _texts(table["companions"], partial(_inside, error, ": 'companions' "))
    rows = table.get("variation")
    if not isinstance(rows, list) or not rows:
        raise error(" holds no variation: write [[variation]] tables")
    return [
        _phrases(row, companions, partial(_inside, error, f" variation {number}: "))
        for number, row in enumerate(rows, start=1)
    ]


def _inside(error: _Error, where: str, what: str) -> QuestionsError:
    return error(where + what)


def _phrases(row: Any, companions: tuple[str, ...], error: _Error) -> Phrases:
    if not isinstance(row, dict):
        raise error("no table: write [[variation]]")
    for unknown in sorted(row.keys() - {"name", "family", "held_out", *_SORTS}):
        raise error(f"{unknown!r} is unknown: use name, family, held_out, {', '.join(_SORTS)}")
    for field in ("name", "family"):
        value = row.get(field)
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise error(f"{field!r} is {value!r}: write words-like-these")
    held_out = row.get("held_out", False)
    if not isinstance(held_out, bool):
        raise error(f"'held_out' is {held_out!r}: write true or false")
    if not row.keys() & set(_SORTS):
        raise error(f"it has no phrases: write {', '.join(_SORTS[:-1])} or {_SORTS[-1]}")
    before, after, around = (
        _texts(row[sort], partial(_inside, error, f"{sort!r} ")) if sort in row else ()
        for sort in _SORTS[:-1]
    )
    for template in around:
        if template.count("{question}") != 1:
            raise error("'around' has a text without one {question}: put it in, once")
        if template.count("{companion}") > len(companions):
            raise error("'around' has more {companion} than there are: add to companions")
    replace = _replacements(row["replace"], error) if "replace" in row else ()
    return Phrases(row["name"], row["family"], held_out, before, after, around, replace, companions)


def _texts(value: Any, error: _Error) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise error('is no list with something in it: write ["...", "..."]')
    if not all(isinstance(text, str) and text.strip() for text in value):
        raise error("has what is blank or no text: write texts alone")
    return tuple(value)


def _replacements(rows: Any, error: _Error) -> tuple[Replacement, ...]:
    if not isinstance(rows, list) or not rows:
        raise error("'replace' is no list: write [[variation.replace]] tables")
    found = []
    for row in rows:
        if not isinstance(row, dict) or row.keys() != {"pattern", "with"}:
            raise error("'replace' has other than pattern and with: write these two")
        replacements = _texts(row["with"], partial(_inside, error, "'with' "))
        try:
            pattern = re.compile(row["pattern"], re.IGNORECASE)
            for replacement in replacements:
                # The empty alternative always matches, so that groups are looked up now.
                re.sub(f"{row['pattern']}|", replacement, "")
        except (re.error, IndexError, TypeError) as wrong:
            raise error(f"'replace' has no regular expression ({wrong}): fix it") from None
        found.append((pattern, replacements))
    return tuple(found)


def _replaced(draw: random.Random, replacements: tuple[str, ...], match: re.Match[str]) -> str:
    """A replacement, with a capital where the match had one."""
    written = match.expand(draw.choice(replacements))
    return written[:1].upper() + written[1:] if match[0][:1].isupper() else written
