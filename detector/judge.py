"""The judge: a backend's observer, which scores, adds up and judges each request at its looks.

What it knows of a request is a `Judgement`, which whoever asked may hold on to; one of which
nothing was said beforehand gets one of its own, and is forgotten with its ask. A request is judged
by one detector from beginning to end.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from detector.backend import Ask
from detector.opinion import Opinion
from detector.trajectory import END, PROMPT_LOOKS, Look, look_name, stage
from detector.verdict import LookScore, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from detector.detector import Detector

log = logging.getLogger(__name__)


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

    `group` is its question's, if questions are judged by group; `refuses` are the stages,
    "prompt" and "response", at which the first look that flags it ends it, `fails_closed` those
    at which one that cannot be judged by does. `detector` judges it, the judge's own if none is
    given. With `explains` it is kept where each look lies among neighbours, as it is of whatever
    is flagged, for who asks why: its `places`. `opinion` is the second one of a question that was
    flagged at its prompt, if it was asked for.
    """

    group: str | None = None
    exclusions: Exclusions = Exclusions()
    refuses: frozenset[str] = frozenset()
    fails_closed: frozenset[str] = frozenset()
    detector: Detector | None = None
    looks: list[LookScore] = field(default_factory=list)
    verdict: Verdict | None = None
    explains: bool = False
    places: dict[Look, Tensor] = field(default_factory=dict)
    opinion: Opinion | None = None

    @property
    def shown(self) -> Verdict | None:
        """What the looks say of the question and of the response that goes out, which may be one
        that a second opinion has made and had judged.
        """
        verdict, opinion, detector = self.verdict, self.opinion, self.detector
        if verdict is None or detector is None or opinion is None or opinion.response is None:
            return verdict
        prompt = [look for look in verdict.looks if look.look in PROMPT_LOOKS]
        return detector.judge([*prompt, *opinion.looks], self.group)

    @property
    def final(self) -> Verdict | None:
        """The verdict that is acted on: where a second opinion has freed the prompt, that of the
        other looks alone. `shown` is what all looks say.
        """
        verdict = self.shown
        if verdict is None or self.opinion is None or not self.opinion.frees:
            return verdict
        reason = f"freed by the second opinion {self.opinion.name}"
        looks = tuple(
            replace(look, excluded=look.excluded or reason) if look.look in PROMPT_LOOKS else look
            for look in verdict.looks
        )
        left = verdict.flagged_stages - {"prompt"}
        at = "response" if left else verdict.stage
        return replace(verdict, is_ood=bool(left), stage=at, looks=looks)

    @property
    def ended(self) -> bool:
        """Whether the looks so far end the request."""
        verdict = self.final
        if verdict is None:
            return False
        failed = {stage(look.look) for look in verdict.failures}
        return bool(verdict.flagged_stages & self.refuses or failed & self.fails_closed)

    @property
    def ended_at(self) -> Look | None:
        """The first look that ends the request, if one does."""
        verdict = self.final
        if verdict is None or not self.ended:
            return None
        failed = {look.look for look in verdict.failures if stage(look.look) in self.fails_closed}
        found = (
            look.look
            for look in verdict.looks
            if look.look in failed
            or (
                look.excluded is None
                and look.score > verdict.threshold
                and stage(look.look) in self.refuses
            )
        )
        return next(found, None)


def verdict_at(judgement: Judgement, at: str) -> Verdict | None:
    """The verdict that is acted on by the looks of one stage alone, None where there were none."""
    shown, opinion = judgement.shown, judgement.opinion
    looks = [look for look in (shown.looks if shown else ()) if stage(look.look) == at]
    if not looks or judgement.detector is None:
        return None
    # The looks of an answer that it has made are among them.
    opinion = opinion and replace(opinion, response=None, looks=())
    theirs = replace(judgement, looks=looks, opinion=opinion)
    theirs.verdict = _verdict(judgement.detector, theirs)
    return theirs.final


class Judge:
    """Judges requests by a detector, or by those that their judgements name. `took` is told the
    seconds that each batch has taken at a look, on the thread that runs the model.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.took: Callable[[float], object] = lambda _: None
        self._judgements: WeakKeyDictionary[Ask, Judgement] = WeakKeyDictionary()
        # By the request that is judged at the prompt for others too: theirs.
        self._others: WeakKeyDictionary[Ask, list[Judgement]] = WeakKeyDictionary()

    @property
    def looks(self) -> frozenset[Look]:
        return frozenset(fitted.look for fitted in self.detector.looks)

    def watch(self, ask: Ask, judgement: Judgement) -> None:
        """Judge a request, before it is submitted, by what its judgement says."""
        if judgement.detector is None:
            judgement.detector = self.detector
        self._judgements[ask] = judgement
        if ask.first is not None:
            self._others.setdefault(ask.first, []).append(judgement)

    def observe(self, look: Look, asks: Sequence[Ask], trajectories: Tensor) -> list[bool]:
        """A backend's observer: judge a batch at one look; True ends a request.

        What scoring raises is a failure of the requests that it raises for, and no exception.
        """
        began = time.perf_counter()
        ends = self._observe(look, asks, trajectories)
        self.took(time.perf_counter() - began)
        return ends

    def fail(self, look: Look, ask: Ask, error: str | None) -> bool:
        """Take a look at which there is nothing that could be scored, by the name of what was
        raised, or for None because it is not finite; True ends the request.
        """
        detector = self._detector_of(ask)
        return self._judge(look, ask, detector, _unscored(detector, look, error))

    def _detector_of(self, ask: Ask) -> Detector:
        if ask not in self._judgements:
            self.watch(ask, Judgement())
        detector = self._judgements[ask].detector
        assert detector is not None
        return detector

    def _observe(self, look: Look, asks: Sequence[Ask], trajectories: Tensor) -> list[bool]:
        detectors: dict[int, Detector] = {}
        rows_of: dict[int, list[int]] = {}
        for row, ask in enumerate(asks):
            detector = self._detector_of(ask)
            detectors[id(detector)] = detector
            rows_of.setdefault(id(detector), []).append(row)
        ends = [False] * len(asks)
        for key, rows in rows_of.items():
            theirs = trajectories if len(rows_of) == 1 else trajectories[rows]
            scored = _scores(detectors[key], look, theirs)
            for row, scores in zip(rows, scored, strict=True):
                ends[row] = self._judge(look, asks[row], detectors[key], scores)
            self._place(look, [asks[row] for row in rows], detectors[key], theirs)
        return ends

    def _place(
        self, look: Look, asks: Sequence[Ask], detector: Detector, trajectories: Tensor
    ) -> None:
        """Keep where those lie of which it may be asked why: a few numbers each, not the states.
        Of a batch without a flag nothing is worked out.
        """
        neighbours = detector.neighbours
        if neighbours is None:
            return
        sharing = [self._sharing(look, ask) for ask in asks]
        rows = [row for row, those in enumerate(sharing) if any(map(_is_to_explain, those))]
        if not rows:
            return
        try:
            places = neighbours.place(look, trajectories[rows])
        except Exception as error:
            # What is judged stands without.
            _log_failure("placing", look, error)
            return
        # Copied here: no other thread waits for the model's device.
        for row, place in zip(rows, [] if places is None else places.cpu(), strict=False):
            for each in sharing[row]:
                each.places[look] = place

    def _sharing(self, look: Look, ask: Ask) -> list[Judgement]:
        """Its judgement, and at the prompt those of the requests that share it."""
        others = self._others.get(ask, []) if look in PROMPT_LOOKS else []
        return [self._judgements[ask], *others]

    def _judge(self, look: Look, ask: Ask, detector: Detector, scores: Sequence[LookScore]) -> bool:
        """Add the scores of one look, and judge by all looks so far. What is judged of a
        prompt holds for all requests that share it.
        """
        judgement = self._judgements[ask]
        # A backend may take looks that only another detector judges by.
        for each in self._sharing(look, ask) if scores else ():
            excluded = each.exclusions.at(look)
            each.looks += [replace(score, excluded=excluded) for score in scores]
            each.verdict = _verdict(detector, each)
        return judgement.ended


def _is_to_explain(judgement: Judgement) -> bool:
    return judgement.explains or bool(judgement.verdict and judgement.verdict.is_ood)


def _verdict(detector: Detector, judgement: Judgement) -> Verdict:
    """By all looks so far. Where judging raises, the last look is one that failed."""
    try:
        return detector.judge(judgement.looks, judgement.group)
    except Exception as error:
        last = judgement.looks[-1]
        _log_failure("judging", last.look, error)
        failed = replace(last, score=math.nan, excluded=None, error=type(error).__name__)
        judgement.looks[-1] = failed
        return Verdict(
            is_ood=None,
            score=None,
            p_value=None,
            threshold=math.nan,
            alpha=detector.alpha,
            stage=stage(failed.look),
            looks=tuple(judgement.looks),
        )


def _scores(detector: Detector, look: Look, trajectories: Tensor) -> list[list[LookScore]]:
    """Of a batch; row by row where scoring all of it raises, so that one fails alone."""
    try:
        return detector.score(look, trajectories)
    except Exception:
        return [
            _scores_of_one(detector, look, trajectories[row : row + 1])
            for row in range(len(trajectories))
        ]


def _scores_of_one(detector: Detector, look: Look, trajectory: Tensor) -> list[LookScore]:
    try:
        (scores,) = detector.score(look, trajectory)
    except Exception as error:
        _log_failure("scoring", look, error)
        return _unscored(detector, look, type(error).__name__)
    return scores


def _unscored(detector: Detector, look: Look, error: str | None) -> list[LookScore]:
    return [
        LookScore(look, fitted.part.score_name, math.nan, math.nan, (), error=error)
        for fitted in detector.looks
        if fitted.look == look
    ]


def _log_failure(doing: str, look: Look, error: Exception) -> None:
    # The message may quote tensors, so only its type and place are logged.
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed at look %s: %s\n%s", doing, look_name(look), type(error).__name__, place)
