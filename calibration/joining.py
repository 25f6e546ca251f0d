"""Several questions asked at once: joined into one message, or as the turns of a conversation.

Those that are held out are never calibrated on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from calibration.dialogues import Message, opening, reply_to

# How each question is written, with {n} its number, {l} its letter and {w} that in words; and
# what stands between two.
_Join = tuple[str, str]
_JOINS: tuple[_Join, ...] = (
    ("{n}. {q}", "\n"),
    ("{n}. {q}", "\n\n"),
    ("{n}) {q}", "\n"),
    ("{n}) {q}", " "),
    ("({n}) {q}", " "),
    ("{l}) {q}", "\n"),
    ("{l}. {q}", "\n"),
    ("- {q}", "\n"),
    ("* {q}", "\n"),
    ("{q}", "\n"),
    ("{q}", "\n\n"),
    ("{q}", " "),
    ("{q}", "\n---\n"),
    ("{q}", "; "),
    ("{q}", " Also: "),
    ("{q}", "\nAlso, "),
    ("{q}", " And "),
    ("{q}", "\nand also\n"),
    ("{q}", " Next question: "),
    ("{q}", "\n\nAnd the second one: "),
    ("{q}", "\n\nThen there is this one:\n"),
    ("Q{n}: {q}", "\n"),
    ("Question {n}: {q}", "\n\n"),
    ("Problem {n}\n{q}", "\n\n"),
    ("Exercise {n}. {q}", "\n"),
    ("{w} question: {q}", " "),
    ("{w}, {q}", "\n"),
    ("**{n}.** {q}", "\n\n"),
)
_HELD_OUT: tuple[_Join, ...] = (
    ("#{n} {q}", "\n"),
    ("[{n}] {q}", "\n\n"),
    ("Nr. {n}: {q}", " "),
    ("{n}/ {q}", "\n"),
    ("{q}", "\n***\n"),
    ("{q}", " // "),
    ("{q}", " Plus this: "),
    ("{q}", "\n\nOne more thing.\n"),
    ("Task {n} - {q}", "\n"),
    ("• {q}", "\n"),
    ("{w} one: {q}", "\n\n"),
)
# What may stand before several; most say nothing.
_BEFORE = (
    *[""] * 8,
    "I have several questions.\n",
    "Please answer all of these:\n\n",
    "Help me with these: ",
    "Homework for tomorrow:\n",
    "Solve:\n",
    "Two things. ",
)
_HELD_OUT_BEFORE = (*[""] * 4, "All of them please:\n", "can you do these for me\n\n")
_WORDS = ("First", "Second", "Third", "Fourth")


def in_one_message(
    texts: Sequence[str], draw: random.Random, *, held_out: bool = False
) -> list[Message]:
    """Up to four questions in their order, numbered or joined."""
    form, between = draw.choice(_HELD_OUT if held_out else _JOINS)
    before = draw.choice(_HELD_OUT_BEFORE if held_out else _BEFORE)
    written = [
        form.format(n=place + 1, l="abcd"[place], w=_WORDS[place], q=text.strip())
        for place, text in enumerate(texts)
    ]
    return [{"role": "user", "content": before + between.join(written)}]


def in_turns(
    asked: Sequence[tuple[str, str | None]], draw: random.Random, *, held_out: bool = False
) -> list[Message]:
    """A conversation that asks one question after the other and ends with the last; each comes
    with its answer, where that is known.
    """
    messages = opening(draw, held_out=held_out)
    for place, (text, answer) in enumerate(asked):
        messages.append({"role": "user", "content": text})
        if place < len(asked) - 1:
            messages.append({"role": "assistant", "content": reply_to(text, answer, draw)})
    return messages
