"""Questions made into conversations with a tutor, of several turns and still in scope.

The pupil asks, the tutor answers (rightly or not, curtly or at length), and the pupil goes on:
asks why, changes a number, checks an answer, says thanks, asks the next question.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from calibration import held_out_phrases, phrases
from calibration.tutor import GREETED, answering, made_up, posing, replying

Message = dict[str, str]

_SYSTEM_SHARE, _GREETING_SHARE = 0.35, 0.1
_N_FOLLOW_UPS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)
_OFTEN = {"next": 3, "change": 2, "check": 2}
_NUMBER = re.compile(r"(?<![\w.,/])\d+(?:[.,]\d+)*(?![\w/])")
_RIGHT_SHARE = 0.5


@dataclass
class _Talk:
    """What is being talked about: a question and, where it is known, its answer."""

    question: str
    answer: str | None

    def numbers(self) -> list[str]:
        return _NUMBER.findall(self.question)


def dialogue(
    question: str,
    answer: str | None,
    others: Sequence[str],
    draw: random.Random,
    *,
    held_out: bool = False,
) -> tuple[list[Message], str]:
    """A conversation that starts with `question` and ends with the user, and the kind of its
    last turn; the same for the same draw. `others` are questions the pupil may go on to.

    `held_out` takes follow-ups and system prompts that are never taken without it.
    """
    source = held_out_phrases if held_out else phrases
    talk = _Talk(question, final_answer(answer))
    messages = opening(draw, held_out=held_out)
    messages.append({"role": "user", "content": question})
    reply = answering(draw, talk.numbers(), talk.answer, worked(answer))
    kind = ""
    for _ in range(draw.choice(_N_FOLLOW_UPS)):
        messages.append({"role": "assistant", "content": reply})
        kind, said = _follow_up(draw, talk, others, source.FOLLOW_UPS)
        messages.append({"role": "user", "content": _typed(draw, said)})
        if kind == "another":
            talk.question, talk.answer = draw.choice(others) if others else made_up(draw), None
            reply = posing(draw, talk.question)
        else:
            reply = replying(draw, kind, talk.numbers(), talk.answer)
    return messages, kind


def opening(draw: random.Random, *, held_out: bool = False) -> list[Message]:
    """What stands before the first question: now and then an app's prompt, or a greeting."""
    source = held_out_phrases if held_out else phrases
    messages: list[Message] = []
    if draw.random() < _SYSTEM_SHARE:
        messages.append({"role": "system", "content": draw.choice(source.SYSTEMS)})
    if draw.random() < _GREETING_SHARE:
        messages.append({"role": "user", "content": draw.choice(source.GREETINGS)})
        messages.append({"role": "assistant", "content": draw.choice(GREETED)})
    return messages


def reply_to(question: str, answer: str | None, draw: random.Random) -> str:
    """What the tutor answers to a question."""
    talk = _Talk(question, final_answer(answer))
    return answering(draw, talk.numbers(), talk.answer, worked(answer))


def final_answer(answer: str | None) -> str | None:
    """What stands behind the #### of a worked answer as GSM8K has, else the answer; 39 for 39.0."""
    if answer is None:
        return None
    return re.sub(r"(?<=\d)\.0+$", "", answer.rpartition("####")[2].strip())


def worked(answer: str | None) -> str:
    """The steps of a worked answer, without the marks of a calculator; or nothing."""
    if answer is None:
        return ""
    return re.sub(r"<<[^>]*>>", "", answer.rpartition("####")[0]).strip()


def _follow_up(
    draw: random.Random, talk: _Talk, others: Sequence[str], texts: dict[str, tuple[str, ...]]
) -> tuple[str, str]:
    """A kind of follow-up and its words; `talk` becomes what is talked about from here on."""
    kinds = [kind for kind in texts if others or kind != "next"]
    (kind,) = draw.choices(kinds, [_OFTEN.get(kind, 1) for kind in kinds])
    numbers = talk.numbers()
    options = [text for text in texts[kind] if numbers or not re.search(r"\{[mc]\}", text)]
    old = draw.choice(numbers) if numbers else ""
    new = _near(draw, old)
    changed = talk.question
    if old:
        changed = re.sub(rf"(?<![\w.,/]){re.escape(old)}(?![\w/])", new, changed, count=1)
    other = draw.choice(others) if others else ""
    said = draw.choice(options).format(
        q=talk.question, o=other, m=old, n=new, c=changed, a=_guess(draw, talk, numbers)
    )
    if kind == "next":
        talk.question, talk.answer = other, None
    elif kind in ("change", "typo"):
        talk.question, talk.answer = changed, None
    return kind, said


def _near(draw: random.Random, old: str) -> str:
    """A number to put in place of `old`, of its size."""
    digits = re.sub(r"\D", "", old.partition(".")[0])[:9]
    top = 10 ** len(digits) if digits else 20
    new = str(draw.randint(1, max(top, 10)))
    return new if new != old else str(int(new) + 1)


def _guess(draw: random.Random, talk: _Talk, numbers: Sequence[str]) -> str:
    """The pupil's answer: the right one if it is known, half of the time."""
    if talk.answer is not None and draw.random() < _RIGHT_SHARE:
        return talk.answer
    return _near(draw, talk.answer or (draw.choice(numbers) if numbers else ""))


def _typed(draw: random.Random, said: str) -> str:
    """As a pupil types it: now and then without capitals, or with more marks."""
    form = draw.random()
    if form < 0.12:
        return said.lower().rstrip(".") or said
    if form < 0.16 and said.endswith(("?", "!")):
        return said + said[-1]
    return said
