"""Background: questions that are not in scope, as `vary` writes them to be told apart."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from calibration.dialogues import Message
from calibration.joining import in_one_message, in_turns
from calibration.questions import Question, key_of
from calibration.vary import AS_TYPED, THREE_SHARE, TRIES, Base, Row, Ways, parts_of, row_of
from detector.errors import QuestionsError

FIRST, LAST, TURN = "background-first", "background-last", "background-turn"
"""The background question beside one in scope: before it, after it, as the last turn."""

_ALONE_REWRITTEN_SHARE = 1 / 2


def background_of(
    background: Iterable[Question], source: str, found: Sequence[Base], ways: Ways
) -> Iterator[Row]:
    """Questions that are not in scope, each four times: by itself, in one message with a question
    in scope, before it and after it, and after one in a conversation. Those in scope are of the
    fit split, for what is learned from them may know no other.

    Raises QuestionsError when that split is empty.
    """
    inside = [base for base in found if base.split == "fit"]
    if not inside:
        raise QuestionsError(
            f"none of the {len(found)} questions is of the fit split, which stand beside the "
            "background: give more questions",
            param="questions",
        )
    for question in background:
        draw = ways.draw("background", question.key)
        yield _alone(question, source, ways, draw)
        first = draw.choice((FIRST, LAST))
        for place in (first, TURN, LAST if first == FIRST else FIRST):
            beside = draw.sample(inside, min(len(inside), 2 if draw.random() < THREE_SHARE else 1))
            asked = [(base.question.text, base.answer) for base in beside]
            asked.insert(0 if place == FIRST else len(asked), (question.text, None))
            parts, names = parts_of(asked, ways, draw)
            join = _turns if place == TURN else _message
            yield row_of(
                join(parts, draw, ways.held_out), (place, *names), question.fields, source, beside
            )


def _alone(question: Question, source: str, ways: Ways, draw: random.Random) -> Row:
    """As it is or, every other time, rewritten."""
    if draw.random() < _ALONE_REWRITTEN_SHARE:
        for text, names in islice(ways.rewritten(question.text), TRIES):
            messages = [*question.messages[:-1], {"role": "user", "content": text}]
            if key_of(messages) != question.key:
                return row_of(messages, names, question.fields, source, [])
    return row_of(list(question.messages), (AS_TYPED,), question.fields, source, [])


def _message(
    parts: Sequence[tuple[str, str | None]], draw: random.Random, held_out: bool
) -> list[Message]:
    return in_one_message([text for text, _ in parts], draw, held_out=held_out)


def _turns(
    parts: Sequence[tuple[str, str | None]], draw: random.Random, held_out: bool
) -> list[Message]:
    return in_turns(parts, draw, held_out=held_out)
