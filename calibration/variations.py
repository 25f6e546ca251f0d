"""Variations: rewritings of a question that keep its task, drawn by a seed.

Phrases before, after and around a question, and replacements by pattern, are in
`variations.toml`; what needs a function is in `rewriting`. A file of the form of the first adds to
them. Variations that are held out are never calibrated on: they tell what the guard makes of ways
to type that it has not seen.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from calibration.rewriting import layout, letters, numbers, people, tasks
from calibration.rewriting.phrases import Phrases, read_phrases
from detector.errors import QuestionsError

Rewrite = Callable[[str, random.Random], str | None]

# What is applied before what: content, then what stands around it, then how all of it is typed.
# Families of files, which nobody knows here, stand around the question.
_BEFORE = ("names", "person", "currency", "units", "numbers", "wording", "options", "several")
_AROUND = ("markup", "instruction", "label", "framing", "greeting", "thanks", "chatter")
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
    packaged = Path(__file__).with_suffix(".toml")
    built_in = read_phrases(packaged)
    variations = {variation.name: variation for variation in _FUNCTIONS}
    _add(variations, built_in, packaged)
    if path is not None:
        companions = max((kind.companions for kind in built_in), key=len)
        _add(variations, read_phrases(path, companions), path)
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
    candidates = _drawn(question, seed, draw, families)
    chosen: list[Variation] = []
    while True:
        chosen += islice(candidates, n - len(chosen))
        text, applied = question, []
        for variation in sorted(chosen, key=_place):
            rewritten = variation.rewrite(text, _draw(question, seed, variation.name))
            if rewritten is not None:
                text = rewritten
                applied.append(variation)
        if len(applied) == len(chosen):
            return text, tuple(variation.name for variation in applied)
        chosen = applied  # one left nothing for another to change: others take its place


def of_kind(question: str, seed: int, variation: Variation) -> str | None:
    """The question after one variation alone; None where it changes nothing."""
    return variation.rewrite(question, _draw(question, seed, variation.name))


def _drawn(
    question: str, seed: int, draw: random.Random, families: dict[str, list[Variation]]
) -> Iterator[Variation]:
    """One variation that applies of each family that has one, in a drawn order."""
    for family in draw.sample(list(families), len(families)):
        for variation in draw.sample(families[family], len(families[family])):
            if of_kind(question, seed, variation) is not None:
                yield variation
                break


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


def _add(variations: dict[str, Variation], kinds: list[Phrases], path: Path) -> None:
    for kind in kinds:
        if kind.name in variations:
            raise QuestionsError(
                f"variations file {str(path)!r}: the name {kind.name!r} is taken: choose another",
                param="variations",
            )
        rewrite = partial(_changed, kind.rewrite)
        variations[kind.name] = Variation(kind.name, kind.family, kind.held_out, rewrite)


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
    _function("imperative", "wording", tasks.imperative),
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
