"""The guard: judges each request at every look, on the engine's thread.

It is the engine's observer. What it knows of a request is a `Judgement`; what it decides
is the policy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from app.policy import Decision, Mode, decide
from detector.artifact import Artifact
from detector.backend import Sampling
from detector.engine.model.text import Text
from detector.engine.request import Request
from detector.errors import InvalidRequestError
from detector.manifest import system_prompt_digest
from detector.trajectory import PROMPT_LOOKS, Look
from detector.verdict import LookScore, Verdict

Message = Mapping[str, str]


@dataclass
class Judgement:
    """A request to the engine and what has been judged of it so far.

    `others` are of the same prompt: what is judged of it here holds for them too.
    """

    request: Request
    mode: Mode
    excluded_prompt: str | None
    excluded_response: str | None
    group: str | None = None
    looks: list[LookScore] = field(default_factory=list)
    verdict: Verdict | None = None
    decision: Decision | None = None
    others: list[Judgement] = field(default_factory=list)


def choices(judgement: Judgement, n: int) -> list[Judgement]:
    """The judgement and n - 1 `others` for as many more responses to its prompt.

    Seeds count up from the first one's, so that responses differ and can be had again.
    """
    first = judgement.request
    judgement.others = [
        replace(
            judgement,
            request=replace(
                first,
                first=first,
                question=None,
                seed=None if first.seed is None else first.seed + index,
                generated=[],
            ),
            looks=[],
            others=[],
        )
        for index in range(1, n)
    ]
    return [judgement, *judgement.others]


class Guard:
    """Judges requests by an artifact. `exclude` leaves uncalibrated looks out."""

    def __init__(self, artifact: Artifact, text: Text, *, exclude: bool) -> None:
        self.artifact = artifact
        self._detector = artifact.detector
        self._context = artifact.manifest.context
        self._grouping = artifact.manifest.grouping
        self._text = text
        self._exclude = exclude
        self._judgements: dict[Request, Judgement] = {}

    @property
    def looks(self) -> set[Look]:
        return {fitted.look for fitted in self._detector.looks}

    def prepare(
        self,
        messages: Sequence[Message],
        mode: Mode,
        *,
        max_tokens: int = 1,
        sampling: Sampling | None = None,
        seed: int | None = None,
        response: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Judgement:
        """A judgement to be, with its request; `response` makes it a trace, `fields` may
        name the question's group.

        Raises InvalidRequestError when there is no user message to judge.
        """
        calibrated = self._context.sampling
        request = Request(
            self._text.encode_conversation(messages),
            max_tokens=max_tokens,
            sampling=sampling or calibrated,
            seed=seed,
            response=None if response is None else self._text.encode_response(response),
        )
        excluded_prompt = excluded_response = None
        if self._context.judged == "question":
            question = self._text.encode_question(_last_user_message(messages))
            if question != request.prompt:
                request.question = question
                excluded_response = "the served prompt is more than the question alone"
        elif system_prompt_digest(messages) not in self._context.system_prompts:
            excluded_prompt = excluded_response = "the system prompt was not calibrated"
        if sampling is not None and sampling != calibrated:
            excluded_response = excluded_response or "the sampling was not calibrated"
        if not self._exclude:
            excluded_prompt = excluded_response = None
        group = None
        if self._grouping is not None:
            group = self._grouping.group_of(_last_user_message(messages), fields or {})
        return Judgement(request, mode, excluded_prompt, excluded_response, group)

    def watch(self, judgement: Judgement) -> None:
        """From now until `forget`, looks at the judgement's request are judged."""
        self._judgements[judgement.request] = judgement

    def forget(self, request: Request) -> None:
        self._judgements.pop(request, None)

    def observe(self, look: Look, requests: Sequence[Request], trajectories: Tensor) -> list[bool]:
        """The engine's observer: judge a batch at one look; True ends a generation."""
        scored = self._detector.score(look, trajectories)
        return [
            self._judge(self._judgements[request], scores)
            for request, scores in zip(requests, scored, strict=True)
        ]

    def _judge(self, judgement: Judgement, scores: Sequence[LookScore]) -> bool:
        """Add the scores of one look, and judge by all looks so far."""
        at_prompt = scores[0].look in PROMPT_LOOKS
        excluded = judgement.excluded_prompt if at_prompt else judgement.excluded_response
        for each in (judgement, *judgement.others) if at_prompt else (judgement,):
            each.looks += [replace(score, excluded=excluded) for score in scores]
            each.verdict = self._detector.judge(each.looks, each.group)
            each.decision = decide(each.verdict, each.mode)
        return judgement.decision == "refuse"


def _last_user_message(messages: Sequence[Message]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            return message["content"]
    raise InvalidRequestError(
        "messages hold no user message to judge: send at least one", param="messages"
    )
