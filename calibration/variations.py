"""Variations: rewritings of a question that keep its task, drawn by a seed.

Phrases before, after and around a question, and replacements by pattern, are in
`variations.toml`; what needs a function is in `rewriting`. A file of the form of the first adds to
them. Variations that are held out are never calibrated on: they tell what the guard makes of ways
to type that it has not seen.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from calibration.rewriting import layout, letters, numbers, people, tasks
from detector.errors import QuestionsError

Rewrite = Callable[[str, random.Random], str | None]

# What is applied before what: content, then what stands around it, then how all of it is typed.
# Families of files, which nobody knows here, stand around the question.
_BEFORE = ("names", "person", "currency", "units", "numbers", "wording", "options", "several")
_AROUND = ("markup", "label", "instruction", "framing", "greeting", "thanks", "chatter")
_AFTER = ("spelling", "typos", "punctuation", "layout", "case", "characters")


@dataclass(frozen=True)
class Variation:
    """One kind of rewriting. `rewrite` gives None where it changes nothing or does not apply."""

    name: str
    family: str
    held_out: bool
    rewrite: Rewrite


def read_variations(path: Path | None = None) -> dict[str, Variation]:
    """The built-in variations by name, and those of a TOML file of the form of the packaged one.

    Raises QuestionsError naming the file, and the variation where there is one.
    """
    companions, found = _read(Path(__file__).with_suffix(".toml"), ())
    variations = {variation.name: variation for variation in (*_FUNCTIONS, *found)}
    if path is not None:
        _, found = _read(path, companions)
        for variation in found:
            if variation.name in variations:
                raise QuestionsError(
                    f"variations file {str(path)!r}: the name {variation.name!r} is taken: "
                    "choose another",
                    param="variations",
                )
            variations[variation.name] = variation
    return variations


def vary(
    question: str, seed: int, variations: Sequence[Variation], n: int
) -> tuple[str, tuple[str, ...]]:
    """The question after `n` variations of different families, and their names in that order.

    Fewer where fewer apply. The same for the same question, seed and variations.
    """
    draw = _draw(question, seed, "")
    families: dict[str, list[Variation]] = {}
    for variation in variations:
        families.setdefault(variation.family, []).append(variation)
    names = list(families)
    draw.shuffle(names)
    chosen: list[Variation] = []
    for name in names:
        if len(chosen) >= n:
            break
        kinds = draw.sample(families[name], len(families[name]))
        applies = (kind for kind in kinds if of_kind(question, seed, kind) is not None)
        chosen += [kind for kind in (next(applies, None),) if kind is not None]
    text, applied = question, []
    for variation in sorted(chosen, key=_place):
        rewritten = variation.rewrite(text, _draw(question, seed, variation.name))
        if rewritten is not None:
            text = rewritten
            applied.append(variation.name)
    return text, tuple(applied)


def of_kind(question: str, seed: int, variation: Variation) -> str | None:
    """The question after one variation alone; None where it changes nothing."""
    return variation.rewrite(question, _draw(question, seed, variation.name))


def _draw(question: str, seed: int, name: str) -> random.Random:
    """Random numbers of one question, seed and variation, so that no variation moves another."""
    content = f"{seed} {name} {question}".encode("utf-8", "surrogatepass")
    return random.Random(hashlib.sha256(content).digest())  # noqa: S311 (reproducible, not secret)


def _place(variation: Variation) -> int:
    order = (*_BEFORE, *_AROUND, "", *_AFTER)
    return order.index(variation.family if variation.family in order else "")


def _changed(
    function: Callable[[str, random.Random], str], text: str, draw: random.Random
) -> str | None:
    """None for a text that is blank or stays as it is."""
    if not text.strip():
        return None
    rewritten = function(text, draw)
    return None if rewritten == text else rewritten


@dataclass(frozen=True)
class _Phrases:
    """A variation of a file: one phrase of each sort that it has, drawn."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    replace: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = ()
    companions: tuple[str, ...] = ()

    def __call__(self, text: str, draw: random.Random) -> str:
        for pattern, replacements in self.replace:
            text = pattern.sub(lambda match: _like(match, draw.choice(replacements)), text)  # noqa: B023
        if self.around:
            template = draw.choice(self.around)
            others = [other for other in self.companions if other not in text]
            draw.shuffle(others)
            parts = re.split(r"(\{question\}|\{companion\})", template)
            # As many companions as the template has places, or the text as it is.
            if parts.count("{companion}") > len(others):
                return text
            fill = {"{question}": lambda: text.strip(), "{companion}": others.pop}
            text = "".join(fill[part]() if part in fill else part for part in parts)
        # What has lines of its own stands apart.
        joint = draw.choice(["\n", "\n\n"]) if "\n" in text.strip() else draw.choice(" \n")
        if self.before:
            text = _join(draw.choice(self.before), joint, text)
        if self.after:
            text = _join(text, joint, draw.choice(self.after))
        return text


def _join(left: str, joint: str, right: str) -> str:
    return left.rstrip() + joint + right.lstrip()


def _like(match: re.Match[str], replacement: str) -> str:
    """The replacement, with a capital where the match had one."""
    written = match.expand(replacement)
    return written[:1].upper() + written[1:] if match[0][:1].isupper() else written


def _read(path: Path, companions: tuple[str, ...]) -> tuple[tuple[str, ...], list[Variation]]:
    """Messages name positions and types, never the content but names."""

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
    unknown = sorted(table.keys() - {"companions", "variation"})
    if unknown:
        raise error(f" has {unknown[0]!r}: write companions and [[variation]] alone")
    if "companions" in table:
        companions = _texts(table["companions"], partial(_at, error, ": 'companions'"))
    rows = table.get("variation")
    if not isinstance(rows, list) or not rows:
        raise error(" holds no variation: write [[variation]] tables")
    found: dict[str, Variation] = {}
    for number, row in enumerate(rows, start=1):
        variation = _variation(row, companions, partial(_at, error, f" variation {number}: "))
        if variation.name in found:
            raise error(f" variation {number}: {variation.name!r} again: choose another name")
        found[variation.name] = variation
    return companions, list(found.values())


def _at(error: Callable[[str], QuestionsError], where: str, what: str) -> QuestionsError:
    return error(where + what)


def _variation(
    row: Any, companions: tuple[str, ...], error: Callable[[str], QuestionsError]
) -> Variation:
    if not isinstance(row, dict):
        raise error("no table: write [[variation]]")
    unknown = sorted(row.keys() - {"name", "family", "held_out", *_SORTS})
    if unknown:
        raise error(f"{unknown[0]!r} is unknown: use name, family, held_out, {', '.join(_SORTS)}")
    for field in ("name", "family"):
        if not isinstance(row.get(field), str) or not re.fullmatch(
            r"[a-z\d]+(-[a-z\d]+)*", row[field]
        ):
            raise error(f"{field!r} is {row.get(field)!r}: write words-like-these")
    held_out = row.get("held_out", False)
    if not isinstance(held_out, bool):
        raise error(f"'held_out' is {held_out!r}: write true or false")
    if not row.keys() & set(_SORTS):
        raise error(f"it has no phrases: write {', '.join(_SORTS[:-1])} or {_SORTS[-1]}")
    phrases = {
        sort: _texts(row[sort], partial(_at, error, f"{sort!r}"))
        for sort in ("before", "after", "around")
        if sort in row
    }
    for template in phrases.get("around", ()):
        if template.count("{question}") != 1:
            raise error(
                "'around' has a text without one {question}: put it where the question goes"
            )
        if "{companion}" in template and not companions:
            raise error("'around' has {companion}, and there are none: write companions = [...]")
    replace = _replacements(row.get("replace", []), error)
    rewrite = partial(_changed, _Phrases(**phrases, replace=replace, companions=companions))
    return Variation(row["name"], row["family"], held_out, rewrite)


_SORTS = ("before", "after", "around", "replace")


def _texts(value: Any, error: Callable[[str], QuestionsError]) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise error(' is no list of texts: write ["..."]')
    if not all(isinstance(text, str) and text.strip() for text in value):
        raise error(" has what is no text or blank: write texts alone")
    return tuple(value)


def _replacements(
    rows: Any, error: Callable[[str], QuestionsError]
) -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    if not isinstance(rows, list):
        raise error("'replace' is no list: write [[variation.replace]] tables")
    found = []
    for row in rows:
        if not isinstance(row, dict) or row.keys() != {"pattern", "with"}:
            raise error("'replace' has other than pattern and with: write these two")
        replacements = _texts(row["with"], partial(_at, error, "'with'"))
        try:
            pattern = re.compile(str(row["pattern"]), re.IGNORECASE)
            for replacement in replacements:
                # The empty alternative always matches, so that the groups are looked up now.
                re.sub(f"{row['pattern']}|", replacement, "")
        except (re.error, IndexError) as wrong:
            raise error(f"'replace' has no regular expression ({wrong}): fix it") from None
        found.append((pattern, replacements))
    return tuple(found)


def _function(
    name: str, family: str, function: Callable[[str, random.Random], str], *, held_out: bool = False
) -> Variation:
    return Variation(name, family, held_out, partial(_changed, function))


_FUNCTIONS = (
    _function("other-names", "names", people.other_names),
    _function("names-from-elsewhere", "names", people.names_from_elsewhere, held_out=True),
    _function("first-person", "person", people.first_person),
    _function("second-person", "person", people.second_person, held_out=True),
    _function("other-currency", "currency", tasks.other_currency),
    _function("currency-from-elsewhere", "currency", tasks.currency_from_elsewhere, held_out=True),
    _function("metric-units", "units", tasks.metric_units),
    _function("number-words", "numbers", numbers.number_words),
    _function("digits", "numbers", numbers.digits),
    _function("thousands-comma", "numbers", numbers.thousands_comma),
    _function("thousands-space", "numbers", numbers.thousands_space, held_out=True),
    _function("number-twice", "numbers", numbers.number_twice, held_out=True),
    _function("question-first", "wording", tasks.question_first),
    _function("find", "wording", tasks.find),
    _function("options", "options", tasks.options),
    _function("options-inline", "options", tasks.options_inline, held_out=True),
    _function("quoted", "markup", layout.quoted),
    _function("bold", "markup", layout.bold),
    _function("bullets", "markup", layout.bullets),
    _function("code-fence", "markup", layout.code_fence),
    _function("json", "markup", layout.as_json),
    _function("tagged", "markup", layout.tagged),
    _function("italic", "markup", layout.italic, held_out=True),
    _function("heading", "markup", layout.heading, held_out=True),
    _function("block-quote", "markup", layout.block_quote),
    _function("latex-numbers", "markup", layout.latex_numbers, held_out=True),
    _function("no-apostrophes", "spelling", letters.no_apostrophes),
    _function("swapped-letters", "typos", letters.swapped_letters),
    _function("missing-letters", "typos", letters.missing_letters),
    _function("neighbouring-keys", "typos", letters.neighbouring_keys),
    _function("stretched-letters", "typos", letters.stretched_letters, held_out=True),
    _function("no-question-mark", "punctuation", letters.no_question_mark),
    _function("no-punctuation", "punctuation", letters.no_punctuation),
    _function("double-question-mark", "punctuation", letters.double_question_mark),
    _function("ellipsis", "punctuation", letters.ellipsis, held_out=True),
    _function("commas-for-stops", "punctuation", letters.commas_for_stops),
    _function("line-per-sentence", "layout", layout.line_per_sentence),
    _function("wrapped", "layout", layout.wrapped),
    _function("doubled-spaces", "layout", layout.doubled_spaces),
    _function("trailing-space", "layout", layout.trailing_space),
    _function("tokenised", "layout", layout.tokenised),
    _function("crlf", "layout", layout.crlf),
    _function("tabs", "layout", layout.tabs, held_out=True),
    _function("no-space-after-stop", "layout", layout.no_space_after_stop, held_out=True),
    _function("lower-case", "case", letters.lower_case),
    _function("upper-case", "case", letters.upper_case),
    _function("loud-words", "case", letters.loud_words),
    _function("title-case", "case", letters.title_case, held_out=True),
    _function("random-case", "case", letters.random_case, held_out=True),
    _function("no-break-space", "characters", letters.no_break_space),
    _function("byte-order-mark", "characters", letters.byte_order_mark),
    _function("curly-quotes", "characters", letters.curly_quotes),
    _function("zero-width-space", "characters", letters.zero_width_space, held_out=True),
    _function("full-width-signs", "characters", letters.full_width_signs, held_out=True),
)
