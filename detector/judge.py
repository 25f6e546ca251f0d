"""The judge: a backend's observer, which scores, adds up and judges each request at its looks.

What it knows of a request is a `Judgement`, which whoever asked may hold on to; one of which
nothing was said beforehand gets one of its own, and is forgotten with its ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from detector.backend import Ask
from detector.trajectory import END, PROMPT_LOOKS, Look
from detector.verdict import LookScore, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from detector.detector import Detector


@dataclass(frozen=True)
class Exclusions:
    """Why looks do not count towards a decision, or None where they do: those at the prompt,
    those at a number of tokens, and the one at the end.
    """

    prompt: str | None = None
    response: str | None = None
    end: str | None = None

    def at(self, look: Look) -> str | None:
        if look in PROMPT_LOOKS:
            return self.prompt
        return self.response or (self.end if look == END else None)


@dataclass(eq=False)
class Judgement:
    """What has been judged of one request so far.

    `group` is its question's, if questions are judged by group; `refuse` ends it at the
    first look after which it is OOD.
    """

    group: str | None = None
    exclusions: Exclusions = Exclusions()
    refuse: bool = False
    looks: list[LookScore] = field(default_factory=list)
    verdict: Verdict | None = None


class Judge:
    """Judges requests by a detector."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self._judgements: WeakKeyDictionary[Ask, Judgement] = WeakKeyDictionary()
        # By the request that is judged at the prompt for others too: theirs.
        self._others: WeakKeyDictionary[Ask, list[Judgement]] = WeakKeyDictionary()

    @property
    def looks(self) -> frozenset[Look]:
        return frozenset(fitted.look for fitted in self.detector.looks)

    def watch(self, ask: Ask, judgement: Judgement) -> None:
        """Judge a request, before it is submitted, by what its judgement says."""
        self._judgements[ask] = judgement
        if ask.first is not None:
            self._others.setdefault(ask.first, []).append(judgement)

    def observe(self, look: Look, asks: Sequence[Ask], trajectories: Tensor) -> list[bool]:
        """A backend's observer: judge a batch at one look; True ends a request."""
        scored = self.detector.score(look, trajectories)
        return [self._judge(look, ask, scores) for ask, scores in zip(asks, scored, strict=True)]

    def _judge(self, look: Look, ask: Ask, scores: Sequence[LookScore]) -> bool:
        """Add the scores of one look, and judge by all looks so far. What is judged of a
        prompt holds for all requests that share it.
        """
        judgement = self._judgements.setdefault(ask, Judgement())
        others = self._others.get(ask, []) if look in PROMPT_LOOKS else []
        for each in (judgement, *others):
            excluded = each.exclusions.at(look)
            each.looks += [replace(score, excluded=excluded) for score in scores]
            each.verdict = self.detector.judge(each.looks, each.group)
        assert judgement.verdict is not None
        return judgement.refuse and bool(judgement.verdict.is_ood)
