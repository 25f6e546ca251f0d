"""Vary: questions files of the ways in which people type questions, made of other questions files.

Every row says which questions it contains, by their keys (`of`), so that it goes to the split that
they go to; what was done to them (`variation`); and the file that the first of them is from
(`source`). Nothing here depends on more than the questions and a seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from calibration.dialogues import Message, dialogue
from calibration.joining import in_one_message, in_turns
from calibration.questions import COLUMNS, OF, SOURCE, VARIATION, Question, Split, is_made, key_of
from calibration.templates import splits_and_templates
from calibration.variations import Variation, of_kind, vary
from detector.atomic import write_atomically
from detector.errors import QuestionsError

AS_TYPED, PAIR = "as typed", "pair"
_MOST_REWRITINGS = 3
# Forms that only differ in case or punctuation have one key and are one question to a file.
TRIES = 4
_REWRITTEN_SHARE = 1 / 3
_TURNS_SHARE = 1 / 4
THREE_SHARE = 1 / 5
_N_OTHERS = 4

Row = dict[str, Any]


@dataclass(frozen=True)
class Base:
    """A question that is varied, the file it is from, and its split."""

    question: Question
    source: str
    split: Split

    @property
    def answer(self) -> str | None:
        return None if self.question.answer is None else str(self.question.answer)


@dataclass(frozen=True)
class Ways:
    """How questions are rewritten and joined: as is calibrated, or as is held out for reports."""

    variations: tuple[Variation, ...]
    held_out: bool
    seed: int

    def draw(self, *what: object) -> random.Random:
        """Random numbers of one purpose, so that no question moves another's."""
        content = " ".join(map(str, (self.seed, *what))).encode("utf-8", "surrogatepass")
        return random.Random(hashlib.sha256(content).digest())  # noqa: S311 (not secret)

    def rewritten(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """One form after another, and the variations in it: one to three that are calibrated,
        one alone of those held out, each of which comes once.
        """
        draw = self.draw("forms", text)
        if self.held_out:
            for variation in draw.sample(self.variations, len(self.variations)):
                form = of_kind(text, self.seed, variation)
                if form is not None:
                    yield form, (variation.name,)
            return
        while True:
            n = draw.randint(1, _MOST_REWRITINGS)
            form, names = vary(text, draw.getrandbits(64), self.variations, n)
            if not names:
                return
            yield form, names

    def at_times_rewritten(self, text: str, draw: random.Random) -> tuple[str, tuple[str, ...]]:
        """As it is typed, or in its first form."""
        if draw.random() >= _REWRITTEN_SHARE:
            return text, ()
        return next(self.rewritten(text), (text, ()))


def bases(
    read: Sequence[tuple[Sequence[Question], str]], *, known_templates: bool = False
) -> list[Base]:
    """The distinct questions of files, each with the name of its file, with the splits that
    `fit` gives them when it has collections of these files.

    Raises QuestionsError for a file that was varied before.
    """
    distinct: dict[str, tuple[Question, str]] = {}
    for questions, name in read:
        for question in questions:
            if is_made(question.fields):
                raise QuestionsError(
                    f"questions file {name!r} has rows with 'of', which `vary` wrote: give the "
                    "files that those were made of",
                    param="questions",
                )
            distinct.setdefault(question.key, (question, name))
    texts = {key: question.text for key, (question, _) in distinct.items()}
    splits, _ = splits_and_templates(texts, known_templates=known_templates)
    return [Base(question, name, splits[key]) for key, (question, name) in distinct.items()]


def variations_of(found: Iterable[Base], ways: Ways, forms: int) -> Iterator[Row]:
    """Each question in as many rewritten forms, or in those there are."""
    for base in found:
        question = base.question
        keys: set[str] = set()
        for text, names in islice(ways.rewritten(question.text), TRIES * forms):
            messages = [*question.messages[:-1], {"role": "user", "content": text}]
            key = key_of(messages)
            if key not in keys:
                keys.add(key)
                yield row_of(messages, names, base.question.fields, base.source, [base])
            if len(keys) == forms:
                break


def dialogues_of(found: Sequence[Base], ways: Ways, n: int) -> Iterator[Row]:
    """Conversations with a tutor about the questions; where the pupil goes on to other ones,
    they are of the same split.
    """
    by_split = _by_split(found)
    for number, base in _some(found, ways, "dialogues", n):
        draw = ways.draw("dialogue", number, base.question.key)
        others = _others(by_split[base.split], [base], _N_OTHERS, draw)
        texts = [other.question.text for other in others]
        text, names = ways.at_times_rewritten(base.question.text, draw)
        messages, kind = dialogue(text, base.answer, texts, draw, held_out=ways.held_out)
        said = "\n".join(message["content"] for message in messages).lower()
        # A pupil types a question in small letters or without its last dot.
        of = [base, *(o for o in others if o.question.text.lower().rstrip(".") in said)]
        yield row_of(
            _after(base.question.messages[:-1], messages),
            (kind, *names),
            base.question.fields,
            base.source,
            of,
        )


def pairs_of(found: Sequence[Base], ways: Ways, n: int) -> Iterator[Row]:
    """Two or three questions of one split at once."""
    by_split = _by_split(found)
    for number, base in _some(found, ways, "pairs", n):
        draw = ways.draw("pair", number, base.question.key)
        n_others = 2 if draw.random() < THREE_SHARE else 1
        several = [base, *_others(by_split[base.split], [base], n_others, draw)]
        if len(several) < 2:
            continue
        parts, names = parts_of([(b.question.text, b.answer) for b in several], ways, draw)
        if draw.random() < _TURNS_SHARE:
            messages = in_turns(parts, draw, held_out=ways.held_out)
        else:
            texts = [text for text, _ in parts]
            messages = in_one_message(texts, draw, held_out=ways.held_out)
        yield row_of(
            _after(base.question.messages[:-1], messages),
            (PAIR, *names),
            base.question.fields,
            base.source,
            several,
        )


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write a questions file, each distinct question once, if there are any; returns how many."""
    distinct: dict[str, Row] = {}
    for row in rows:
        distinct.setdefault(key_of(_messages(row)), row)
    lines = [json.dumps(row, ensure_ascii=False) for row in distinct.values()]
    if lines:
        write_atomically(path, "".join(line + "\n" for line in lines).encode())
    return len(lines)


def parts_of(
    asked: Sequence[tuple[str, str | None]], ways: Ways, draw: random.Random
) -> tuple[list[tuple[str, str | None]], tuple[str, ...]]:
    """Questions and answers as they are joined, and the variations in them."""
    parts: list[tuple[str, str | None]] = []
    applied: list[str] = []
    for text, answer in asked:
        form, names = ways.at_times_rewritten(text, draw)
        parts.append((form, answer))
        applied += names
    return parts, tuple(dict.fromkeys(applied))


def _by_split(found: Sequence[Base]) -> dict[Split, list[Base]]:
    by_split: dict[Split, list[Base]] = {}
    for base in found:
        by_split.setdefault(base.split, []).append(base)
    return by_split


def _some(found: Sequence[Base], ways: Ways, what: str, n: int) -> Iterator[tuple[int, Base]]:
    """`n` questions, none twice before all have come once."""
    order = sorted(found, key=lambda base: ways.draw(what, base.question.key).random())
    return enumerate(islice(cycle(order), n))


def _others(
    inside: Sequence[Base], without: Sequence[Base], n: int, draw: random.Random
) -> list[Base]:
    drawn = draw.sample(inside, min(len(inside), n + len(without)))
    return [base for base in drawn if base not in without][:n]


def _after(earlier: Sequence[Message], messages: Sequence[Message]) -> list[Message]:
    """What stands before a question takes the place of a made-up app's prompt."""
    if not earlier:
        return list(messages)
    return [*earlier, *(message for message in messages if message["role"] != "system")]


def _messages(row: Row) -> list[Message]:
    return row.get("messages") or [{"role": "user", "content": row["question"]}]


def row_of(
    messages: list[Message],
    names: Sequence[str],
    fields: dict[str, str],
    source: str,
    of: Sequence[Base],
) -> Row:
    """A single message is a text, which people read more easily."""
    asked: Row = {"messages": messages}
    if len(messages) == 1:
        asked = {"question": messages[0]["content"]}
    others = {name: value for name, value in fields.items() if name not in COLUMNS}
    row = asked | {SOURCE: source} | others | {VARIATION: " ".join(names)}
    if of:
        row[OF] = " ".join(dict.fromkeys(base.question.key for base in of))
    return row
