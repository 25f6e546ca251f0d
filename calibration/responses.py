"""Responses that come with their questions, whichever model made them.

A row of such a file asks as a row of a questions file does (see `calibration.questions`), and has
the response in `response`, `completion`, `generated_text` or `output`: a text, or one message of
the assistant's. Without any of these columns its messages may end with the assistant's, as in
training data. Each question counts once, with the first response to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from calibration.questions import COLUMNS, HALF, MESSAGES, Question, content_of, question_of
from calibration.reading import Row, columns, kind, read, wrong
from detector.errors import QuestionsError
from detector.manifest import Judged, Source
from detector.trajectory import END, PROMPT_LOOKS, Look, in_order, look_name, taken_at

RESPONSES = ("response", "completion", "generated_text", "output")
"""Where a row's response is looked for, in this order."""


@dataclass(frozen=True)
class GivenResponses:
    """The distinct questions of a file and the response to each, by its key. `n_repeated` rows
    ask what a row before them asks.
    """

    questions: tuple[Question, ...]
    responses: Mapping[str, str]
    source: Source
    n_repeated: int


def read_responses(
    path: Path,
    *,
    judged: Judged,
    column: str | None = None,
    response_column: str | None = None,
    made_by: str | None = None,
) -> GivenResponses:
    """The questions and responses of a file or folder.

    Raises QuestionsError naming the file, the place and the column; where only questions are
    judged, also at a conversation, for responses are read after the question alone then.
    """
    found, digest = read(path)
    questions: dict[str, Question] = {}
    responses: dict[str, str] = {}
    for row in found:
        question, response = _parted(row, column, response_column)
        if judged == "question" and len(question.messages) > 1:
            raise wrong(
                row.where,
                f"a conversation of {len(question.messages)} messages, and --judged question reads "
                "a response after its question alone: collect with --judged conversation or leave "
                "the others out",
            )
        questions.setdefault(question.key, question)
        responses.setdefault(question.key, response)
    if not found:
        raise QuestionsError(
            f"questions file {str(path)!r} holds no question: write one JSON object a line, with "
            "its question and response, or rows under a heading",
            param="responses",
        )
    source = Source(
        name=path.resolve().name if path.is_dir() else path.stem,
        n_questions=len(questions),
        # Other columns of the same rows are other responses.
        sha256=hashlib.sha256(f"{column} {response_column} {digest}".encode()).hexdigest(),
        responses_from=made_by,
    )
    n_repeated = len(found) - len(questions)
    return GivenResponses(tuple(questions.values()), responses, source, n_repeated)


def lengths_in_words(lengths: Sequence[int], n_cut: int, looks: Sequence[Look], most: int) -> str:
    """What looks cannot see of responses of these lengths in tokens, of which `n_cut` go on after
    `most` tokens or after those that a slot has room for.
    """
    said = [f"{len(lengths)} responses"]
    if n_empty := lengths.count(0):
        said.append(f"{n_empty} empty, which no look at the response sees")
    for look in in_order(looks):
        if look not in PROMPT_LOOKS and look != END:
            n_short = sum(0 < length < taken_at(look) for length in lengths)
            said += [f"{n_short} end before look {look_name(look)}"] if n_short else []
    if n_cut and END in looks:
        said.append(f"{n_cut} go on after {most} tokens or the end of a slot: no look at their end")
    return "; ".join(said)


def _parted(row: Row, column: str | None, response_column: str | None) -> tuple[Question, str]:
    """A row's question, as a row without the response would ask it, and the response."""

    def error(what: str) -> QuestionsError:
        return wrong(row.where, what)

    names = RESPONSES if response_column is None else (response_column,)
    there = [name for name in names if name in row.values]
    if there:
        name = next((name for name in there if row.values[name] is not None), there[0])
        response = _response(name, row.values[name], error)
        others = {other: value for other, value in row.values.items() if other != name}
    else:
        asks = [name for name in COLUMNS if row.values.get(name) is not None]
        name = column or next(iter(asks), MESSAGES)
        messages = row.values.get(name)
        if response_column is not None or not _ends_with_assistant(messages):
            looked = " or ".join(map(repr, names))
            raise error(
                f"no column {looked} (there are: {columns(row)}): name one with --response-column"
            )
        *before, last = messages
        response = _response(f"{name}[{len(before)}]", last, error)
        others = row.values | {name: before}
    try:
        response.encode()
    except UnicodeEncodeError:
        raise error(HALF) from None
    return question_of(replace(row, values=others), column), response


def _ends_with_assistant(messages: Any) -> TypeGuard[list[Any]]:
    return isinstance(messages, list) and len(messages) > 1 and _is_assistant(messages[-1])


def _is_assistant(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _response(name: str, value: Any, error: Callable[[str], QuestionsError]) -> str:
    if value is None:
        raise error(
            f'{name!r} is null: write the response, "" in JSON where it was empty, or remove the '
            "row"
        )
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    text = content_of(value) if _is_assistant(value) else value
    if not isinstance(text, str):
        what = "message without a text" if _is_assistant(value) else kind(value)
        raise error(f"{name!r} is {what}: write a text, or one message of the assistant's")
    return text
