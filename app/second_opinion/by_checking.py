"""A second opinion by the model's own check: answered, criticised and answered again, one round.

The artifact says how it is asked, and whether it may be (`detector.recheck_record`). What goes out
is the second answer, drawn as it was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.second_opinion.giving import Flagged
from detector.errors import ArtifactMismatchError
from detector.manifest import Manifest, Place
from detector.opinion import Opinion
from detector.recheck_record import RecheckRecord
from detector.rechecking import Due, Round

if TYPE_CHECKING:
    from app.loading import Loaded
    from app.settings import Settings

NAME = "recheck"
NOT_ALONE = "a recheck was measured on questions asked alone"
HELD_TO_A_FORM = "a recheck answers in plain text, and the response is held to a form"
LOGPROBS = "a recheck tells no log-probabilities"


class ByChecking:
    """Frees a question with the second answer, where that is not more OOD than the first."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._record = record_of(loaded.manifest)

    async def give(self, flagged: Flagged) -> Opinion:
        loaded = self._loaded
        if (unlike := self._unlike_measured(flagged)) is not None:
            return Opinion(NAME, frees=False, failure=unlike)
        one = Round(
            loaded.codec,
            self._record.asking,
            loaded.manifest.context,
            loaded.others.get(flagged.verdict.alpha, loaded.detector),
            flagged.messages,
            max_length=loaded.admission.max_length,
            max_tokens=flagged.ask.max_tokens,
            group=flagged.verdict.group,
            timeout_seconds=loaded.settings.second_opinion_seconds,
        )
        while (due := one.due) is not None:
            await self._run(one, due)
        outcome = one.outcome
        if outcome.second is None:
            return Opinion(NAME, frees=False, tokens=outcome.n_tokens, reason=outcome.reason)
        return Opinion(
            NAME,
            frees=outcome.sends,
            score=outcome.second.score,
            p_value=outcome.second.p_value,
            tokens=outcome.n_tokens,
            reason=outcome.reason,
            response=outcome.response if outcome.sends else None,
            finish=outcome.finish,
            looks=outcome.looks,
        )

    async def _run(self, one: Round, due: Due) -> None:
        self._loaded.judge.watch(due.ask, due.judgement)
        steps = self._loaded.engine.submit([due.ask])
        try:
            async for step in steps:
                one.push(step)
        finally:
            steps.close()

    def _unlike_measured(self, flagged: Flagged) -> str | None:
        """Why this is no question as those whose second answers were measured, or None."""
        ask, codec = flagged.ask, self._loaded.codec
        roles = [message["role"] for message in flagged.messages]
        # Another prompt has tools in it, or is under no template.
        if roles != ["user"] or codec.encode_conversation(flagged.messages) != ask.prompt:
            return NOT_ALONE
        if ask.grammar is not None:
            return HELD_TO_A_FORM
        return None if ask.n_logprobs is None else LOGPROBS


def record_of(manifest: Manifest) -> RecheckRecord:
    """Raises ArtifactMismatchError where an artifact has none."""
    if manifest.recheck is None:
        raise ArtifactMismatchError(
            "nobody has measured whether the model's answers are better for its own check: write "
            "an artifact that says so with `trajguard recheck`, or serve without the second "
            "opinion 'recheck'",
            param="second_opinion",
        )
    return manifest.recheck


def require_recheck(settings: Settings, manifest: Manifest, place: Place) -> None:
    """Raises ArtifactMismatchError where it was not measured at this place, or makes answers
    worse.
    """
    record_of(manifest).require(place.fingerprint.dtype, place.engine)
