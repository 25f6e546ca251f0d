"""One round of a model that checks itself: the same in calibration and in serving.

Checking as Context (Wang et al., arXiv 2405.18634), as its authors' code has it with one round
(github.com/yifeiwang77/Self-Correction, `self_checking_response`, and `BBQ/eval/request.py` for
"Based on your review, answer the question again"):

    x -> y,   (x, y, check) -> critique,   (x, y, check, critique, x again) -> y'

The critique is the reward r of the paper's triplet (x, y, r), and is as good a reward as the
critic is accurate. The check tells the guard's p-value besides, which the authors' do not.

`Round` makes what is to be asked of a backend, one ask after another, and is fed the steps. There
is never a second round.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from detector.backend import Ask, Codec, Message, RenderedQuestion, Step
from detector.conversation import judged_question
from detector.errors import EngineError
from detector.judge import Judgement
from detector.manifest import Context
from detector.recheck_record import Rechecking
from detector.trajectory import PROMPT_LOOKS
from detector.verdict import LookScore, Verdict

if TYPE_CHECKING:
    from detector.detector import Detector

MORE_OOD = "the second answer is more OOD than the first"
FLAGGED = "the second answer is flagged by its own looks"
UNFINISHED = "the second answer has no end in the tokens that it may have"
UNSEEN = "no look sees both answers"

_MORE_THAN_SEEDS = 2**48


@dataclass(frozen=True)
class Due:
    """What is to be asked next, and what is to be judged of it."""

    ask: Ask
    judgement: Judgement


@dataclass
class _Asked:
    """An ask, and what has come of it."""

    ask: Ask
    judgement: Judgement
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a round. `sends`: the second answer goes out; `reason` says why not.

    `first` and `second` judge the answers' own trajectories by the same looks, None where no look
    sees both. `response` is the second answer, its end token included if it drew one, and `finish`
    says why it ended; `looks` are its own at the response. `n_tokens` counts those read and
    generated in all, `n_plain` those of x and y alone.
    """

    sends: bool
    reason: str | None
    first: Verdict | None
    second: Verdict | None
    response: tuple[int, ...]
    finish: Literal["stop", "length"]
    looks: tuple[LookScore, ...]
    p_value: float
    texts: tuple[str, str, str]
    n_tokens: int
    n_plain: int


class Round:
    """One question's. While `due` is something, have it run and push its steps; then `outcome`.

    The two answers' own trajectories are compared by the looks that both of them reach. Where the
    artifact has looks at the response these are taken on the first answer as it is generated, and
    on the second as it is read after x alone, where it would stand if it had been the first. Where
    it has looks at the prompt alone, they are taken on x with each answer behind it in one message.
    The second is more OOD where its highest score is higher: then its p-value is no higher, and two
    that lie beyond all that was calibrated are told apart.

    `max_tokens` is what the client allows an answer, `group` the question's. Nothing that is asked
    is ended by a look, or takes a place of others' in the queue.
    """

    def __init__(
        self,
        codec: Codec,
        asking: Rechecking,
        context: Context,
        detector: Detector,
        messages: Sequence[Message],
        *,
        max_length: int,
        max_tokens: int | None = None,
        group: str | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        self._codec = codec
        self._asking = asking
        self._context = context
        self._detector = detector
        self._messages = list(messages)
        self._max_length = max_length
        self._most = math.inf if max_tokens is None else max_tokens
        self._group = group
        self._timeout_seconds = timeout_seconds
        self._sees_responses = any(fitted.look not in PROMPT_LOOKS for fitted in detector.looks)
        self._asked: list[_Asked] = []
        self._dialogue = list(messages)
        # What is left to be read of the two answers, to judge them.
        self._left: list[Ask] | None = None
        most = min(asking.max_tokens, self._most)
        self._ask(self._generate(self._dialogue, most, self._judged(messages)))

    @property
    def due(self) -> Due | None:
        """What is to be asked now; None once all has been."""
        last = self._asked[-1]
        return None if last.finish is not None else Due(last.ask, last.judgement)

    def push(self, step: Step) -> None:
        """Raises EngineError where something cannot be had."""
        last = self._asked[-1]
        assert step.ask is last.ask
        if step.token is not None:
            last.tokens.append(step.token)
        if step.finish is not None:
            if step.finish not in ("stop", "length", "traced"):
                raise EngineError(f"a recheck ended as {step.finish!r}, not by its tokens")
            last.finish = step.finish
            self._go_on()

    @property
    def outcome(self) -> Outcome:
        """Once nothing is due. Raises EngineError where an answer cannot be judged."""
        first, second = self._compared()
        answer = self._asked[2]
        limit = answer.ask.max_tokens
        reason = None
        if answer.finish == "length" and limit < self._most:
            reason = UNFINISHED
        elif first is None or second is None:
            reason = UNSEEN
        elif _score(second) > _score(first):
            reason = MORE_OOD
        elif self._sees_responses and self._is_flagged():
            reason = FLAGGED
        return Outcome(
            sends=reason is None,
            reason=reason,
            first=first,
            second=second,
            response=tuple(answer.tokens),
            finish="length" if answer.finish == "length" else "stop",
            looks=tuple(self._looks(-1)) if self._sees_responses else (),
            p_value=self._p_value(),
            texts=(self._text(0), self._text(1), self._text(2)),
            n_tokens=sum(map(_n_tokens, self._asked)),
            n_plain=_n_tokens(self._asked[0]),
        )

    def _ask(self, ask: Ask) -> None:
        judgement = Judgement(self._group, detector=self._detector)
        self._asked.append(_Asked(ask, judgement))

    def _go_on(self) -> None:
        if len(self._asked) == 1:
            check = self._asking.check.replace("{p_value}", f"{self._p_value():.2g}")
            self._say(check, self._asking.check_tokens)
        elif len(self._asked) == 2:
            question = self._messages[-1]["content"]
            again = self._asking.again.replace("{question}", question)
            self._say(again, min(self._asking.max_tokens, self._most))
        else:
            if self._left is None:
                self._left = self._to_read()
            if self._left:
                self._ask(self._left.pop(0))

    def _say(self, text: str, max_tokens: float) -> None:
        """To the model, after what it has said."""
        said: Message = {"role": "assistant", "content": self._text(len(self._asked) - 1)}
        self._dialogue += [said, {"role": "user", "content": text}]
        self._ask(self._generate(self._dialogue, max_tokens))

    def _generate(
        self,
        messages: Sequence[Message],
        max_tokens: float,
        question: RenderedQuestion | None = None,
    ) -> Ask:
        prompt = self._codec.encode_conversation(messages)
        digest = hashlib.sha256(repr(prompt).encode()).digest()
        return Ask(
            prompt,
            max_tokens=int(max_tokens),
            sampling=self._asking.sampling,
            # The same question draws the same answers: asking again is no second chance.
            seed=int.from_bytes(digest[:8]) % _MORE_THAN_SEEDS,
            question=question,
            timeout_seconds=self._timeout_seconds,
            uncounted=True,
        )

    def _judged(self, messages: Sequence[Message]) -> RenderedQuestion | None:
        return judged_question(self._codec, self._context.judged, messages, self._max_length)

    def _to_read(self) -> list[Ask]:
        """What is to be read for both answers to be judged: nothing where they are one."""
        first, second = self._asked[0], self._asked[2]
        if not self._sees_responses:
            texts = [self._text(0), self._text(2)]
            return [self._read_behind(text) for text in dict.fromkeys(texts)]
        if first.tokens == second.tokens:
            return []
        return [
            Ask(
                first.ask.prompt,
                question=first.ask.question,
                response=tuple(second.tokens),
                timeout_seconds=self._timeout_seconds,
                uncounted=True,
            )
        ]

    def _read_behind(self, answer: str) -> Ask:
        last = self._messages[-1]
        messages = [*self._messages[:-1], {**last, "content": f"{last['content']}\n\n{answer}"}]
        question = self._judged(messages)
        prompt = self._codec.encode_conversation(messages) if question is None else question.tokens
        return Ask(
            prompt,
            question=question,
            response=(),
            timeout_seconds=self._timeout_seconds,
            uncounted=True,
        )

    def _compared(self) -> tuple[Verdict | None, Verdict | None]:
        """Verdicts on both answers by the looks that both have; None where there is none."""
        read = self._asked[3:]
        pair = [self._looks(0), self._looks(-1)] if self._sees_responses else []
        if not self._sees_responses:
            pair = [read[0].judgement.looks, read[-1].judgement.looks]
        both = {look.look for look in pair[0]} & {look.look for look in pair[1]}
        if not both:
            return None, None
        first, second = (
            self._detector.judge([look for look in looks if look.look in both], self._group)
            for looks in pair
        )
        return first, second

    def _looks(self, place: int) -> list[LookScore]:
        """Those at the response of the first answer (0) or the second (-1), which is the first
        where nothing was read.
        """
        asked = self._asked[0] if place == 0 or len(self._asked) == 3 else self._asked[-1]
        return [look for look in asked.judgement.looks if look.look not in PROMPT_LOOKS]

    def _is_flagged(self) -> bool:
        return bool(self._detector.judge(self._looks(-1), self._group).is_ood)

    def _p_value(self) -> float:
        """The guard's of the question, with the first answer where looks see that."""
        verdict = self._asked[0].judgement.verdict
        if verdict is None or verdict.p_value is None:
            raise EngineError("the question and its first answer cannot be judged")
        return verdict.p_value

    def _text(self, place: int) -> str:
        asked = self._asked[place]
        decoder = self._codec.stream()
        shown = asked.tokens[:-1] if asked.finish == "stop" else asked.tokens
        return "".join(map(decoder.push, shown)) + decoder.flush()


def _score(verdict: Verdict) -> float:
    """Raises EngineError where it has none: one of its looks cannot be judged by."""
    if verdict.score is None or verdict.failures:
        raise EngineError("an answer cannot be judged")
    return verdict.score


def _n_tokens(asked: _Asked) -> int:
    return len(asked.ask.prompt) + len(asked.ask.response or ()) + len(asked.tokens)
