"""Questions files, and the split of questions into fit, conformal and holdout.

A questions file is JSON Lines in UTF-8: one object a line with `question` (a text) or
`messages` (an OpenAI conversation that ends with the user). `options`, a list of texts beside
`question`, makes it multiple choice: they are appended as lines A., B., C., D. Other fields
that are texts may name a question's group.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from detector.errors import QuestionsError
from detector.manifest import Source

Split = Literal["fit", "conformal", "holdout"]

SHARES: dict[Split, float] = {"fit": 0.5, "conformal": 0.3, "holdout": 0.2}
_KEY_HALF = 8
_ROLES = ("system", "developer", "user", "assistant")

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
_TOKENS = re.compile(
    r"""
    (?:(?<!\w)\.)?\d+(?:[.,:]\d+)*              # a number, and what is written inside one
    | \w+
    | != | (?<=[\d)])!+ | (?<=\b[^\W\d_])!+      # unequal; factorials
    | (?<=\b[^\W\d_])['\u2019]+(?=\()           # derivatives
    | [^\w\s.,;:?!'"`\u2018-\u201f\u2026\u00ab\u00bb\u00a1\u00bf]   # signs: all but a sentence's
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Question:
    """One question as the conversation that asks it.

    `key` is what `key_of` knows it by; `answer` is the row's `answer`, or None; `fields` are its
    other fields that are texts.
    """

    messages: tuple[dict[str, str], ...]
    key: str
    answer: Any = None
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The last user message."""
        return self.messages[-1]["content"]

    @property
    def seed(self) -> int:
        """For drawing its response: another one for every question, as serving has, and the
        same one in every run. 32 bits, which is what a CPU generator takes in.
        """
        return int(self.key[_KEY_HALF:], 16)


def key_of(messages: Sequence[dict[str, str]]) -> str:
    """What a question is known by: 16 hexadecimal digits.

    The first half hashes the words alone and decides the split, so that near-copies never
    straddle one. The second hashes words, numbers and signs, so that "3 + 4" and "3 - 4" are
    two questions; copies that differ in spacing, case or a sentence's punctuation are one.
    """
    text = "\n".join(message["content"] for message in messages).lower()
    words, tokens = (
        hashlib.sha256(" ".join(found).encode()).hexdigest()
        for found in (re.findall(r"\w+", text), _TOKENS.findall(text.translate(_DASHES)))
    )
    # Other digits of each: of a text without signs the two hashes are the same.
    return words[:_KEY_HALF] + tokens[_KEY_HALF : 2 * _KEY_HALF]


def split_of(key: str) -> Split:
    """Half of all questions to fit, 30 % to conformal, 20 % to holdout."""
    return split_at(position_of(key), SHARES)


def words_of(key: str) -> str:
    """The half of a key that hashes the words alone."""
    return key[:_KEY_HALF]


def position_of(key: str) -> float:
    """Where a question's words stand in [0, 1): uniform over questions."""
    return int(words_of(key), 16) / float(16**_KEY_HALF)


def split_at(position: float, shares: Mapping[Split, float]) -> Split:
    """The split that covers a position in [0, 1); shares may add up to any positive sum."""
    position *= sum(shares.values())
    if position < shares["fit"]:
        return "fit"
    return "conformal" if position < shares["fit"] + shares["conformal"] else "holdout"


def in_first(position: int, first: int) -> bool:
    """Whether a row is among the first `first` of every hundred: the paper's split of
    MultiArith into 360 rows to fit and 240 to test, at `first` = 60.
    """
    return position % 100 < first


def read_questions(path: Path) -> tuple[list[Question], Source]:
    """The distinct questions of a file, in order, and the file's record.

    Raises QuestionsError as `read_rows` does.
    """
    rows, digest = read_rows(path)
    distinct: dict[str, Question] = {}
    for question in rows:
        distinct.setdefault(question.key, question)
    source = Source(name=path.stem, n_questions=len(distinct), sha256=digest)
    return list(distinct.values()), source


def read_rows(path: Path) -> tuple[list[Question], str]:
    """All questions of a file, copies too, in order, and the SHA-256 of the file.

    Raises QuestionsError naming the file, and the line where there is one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise QuestionsError(
            f"questions file {str(path)!r} cannot be read ({error.strerror}): check the path",
            param="questions",
        ) from None
    rows = [
        _parse(line, f"questions file {str(path)!r} line {number}")
        for number, line in enumerate(content.splitlines(), start=1)
        if line.strip()
    ]
    if not rows:
        raise QuestionsError(
            f"questions file {str(path)!r} holds no question: write one JSON object a line",
            param="questions",
        )
    return rows, hashlib.sha256(content).hexdigest()


def require_answers(questions: Sequence[Question], path: Path, purpose: str) -> None:
    """Raise QuestionsError unless every question has an answer."""
    missing = sum(question.answer is None for question in questions)
    if missing:
        raise QuestionsError(
            f"questions file {str(path)!r}: {missing} of {len(questions)} rows have no 'answer', "
            f"which {purpose} needs: add an answer to each row",
            param="questions",
        )


def _parse(line: bytes, where: str) -> Question:
    """Messages name positions and types, never the content."""

    def error(what: str) -> QuestionsError:
        return QuestionsError(f"{where}: {what}", param="questions")

    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as wrong:
        raise error(f"not UTF-8 at byte {wrong.start}: save the file as UTF-8") from None
    except json.JSONDecodeError as wrong:
        raise error(f"not JSON ({wrong.msg} at column {wrong.colno}): fix the line") from None
    if not isinstance(row, dict):
        raise error(f'a JSON {_kind(row)}, not an object: write {{"question": ...}}')
    if "messages" in row:
        messages = _messages(row["messages"], error)
    else:
        question = row.get("question")
        if not isinstance(question, str):
            found = _kind(question) if "question" in row else "missing"
            raise error(f"'question' is {found}: write a text, or 'messages'")
        messages = ({"role": "user", "content": question + _options(row.get("options"), error)},)
    key = key_of(messages)
    if not any(message["content"].strip() for message in messages[-1:]):
        raise error("the question is empty: write one or remove the line")
    read = ("question", "messages", "answer", "options")
    others = {n: v for n, v in row.items() if n not in read and isinstance(v, str)}
    return Question(messages, key, row.get("answer"), others)


def _options(value: Any, error: Callable[[str], QuestionsError]) -> str:
    if value is None:
        return ""
    texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
    if not texts or not 2 <= len(value) <= 26:
        raise error(f"'options' is {_kind(value)}: write a list of 2 to 26 texts")
    return "".join(f"\n{chr(ord('A') + n)}. {text}" for n, text in enumerate(value))


def _messages(value: Any, error: Callable[[str], QuestionsError]) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise error(f"'messages' is {_kind(value)}: write a list of role and content")
    for index, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise error(f"messages[{index}] has no text in 'content': write one")
        if message.get("role") not in _ROLES:
            raise error(f"messages[{index}] has an unknown role: use one of {', '.join(_ROLES)}")
    if value[-1]["role"] != "user":
        raise error("the last message is not the user's: end with the question")
    return tuple({"role": m["role"], "content": m["content"]} for m in value)


def _kind(value: Any) -> str:
    names: dict[type, str] = {dict: "object", list: "list", str: "text", type(None): "null"}
    return "empty list" if value == [] else names.get(type(value), type(value).__name__)
