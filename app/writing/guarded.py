"""What every answer says of its verdict, whatever contract it is written in."""

from __future__ import annotations

from app.chat.choice import Piece
from app.chat.generation import Generation
from app.errors import RefusedError
from app.loading import Loaded
from app.wire.moderation import Moderation
from app.wire.verdict import ChatVerdict, DecisionVerdict
from app.writing.headers import verdict_headers
from app.writing.moderation import moderation_of
from app.writing.verdict import chat_verdict
from detector.judge import Judgement
from detector.trajectory import stage

NOT_JUDGED = "This question could not be judged, so it is not answered."
"""In place of a refusal, which says that a question was judged."""


class Guarded:
    """The verdicts of a generation. `detail` says whether the client sees them whole, `param` what
    its contract calls that which is refused.
    """

    def __init__(self, generation: Generation, loaded: Loaded, *, detail: bool, param: str) -> None:
        self.generation = generation
        self.style = loaded.settings.refusal_style
        self._artifact_id = loaded.artifact_id
        self._text = loaded.manifest.context.text
        self._refusal = loaded.settings.refusal
        self._judges_responses = any(stage(look) == "response" for look in loaded.looks)
        self._detail = detail
        self._param = param
        # How many looks the verdicts shown so far have, by choice.
        self._n_shown = [0] * len(generation.asked.asks)

    def headers(self) -> dict[str, str]:
        """What tells the verdict so far to clients that do not see it in the body."""
        return verdict_headers(
            self.generation.judgement,
            self.generation.asked.modes,
            self._artifact_id,
            detail=self._detail,
        )

    def require_not_refused(self, first: Piece | None = None) -> None:
        """Raises RefusedError where all choices are refused, at `first` if one is given, and
        refusals are errors.
        """
        if first is not None and first.ending != "refused":
            return
        judgements = self.generation.asked.judgements
        if self.style == "error" and all(each.ended for each in judgements):
            raise RefusedError(self.refusal_of(0), self.headers(), param=self._param)

    def refusal_of(self, index: int) -> str:
        verdict = self.generation.asked.judgements[index].shown
        return NOT_JUDGED if verdict is not None and verdict.failures else self._refusal

    def verdict(self, index: int | None = None) -> ChatVerdict | DecisionVerdict | None:
        """That of a choice, or of the one that is most OOD."""
        generation = self.generation
        judgement = generation.judgement if index is None else generation.asked.judgements[index]
        return self._shown(judgement)

    def verdict_if_new(self, index: int) -> ChatVerdict | DecisionVerdict | None:
        """That of a choice, where looks were taken since it was last shown."""
        judgement = self.generation.asked.judgements[index]
        n_looks = len(judgement.looks)
        if n_looks == self._n_shown[index]:
            return None
        self._n_shown[index] = n_looks
        return self._shown(judgement)

    def moderation(self) -> Moderation | None:
        asked = self.generation.asked
        if set(asked.modes) == {"shadow"}:
            return None
        pairs = zip(asked.asks, asked.judgements, strict=True)
        return moderation_of(
            asked.judgements,
            self._artifact_id,
            prompts=[judgement for ask, judgement in pairs if ask.first is None],
            judges_responses=self._judges_responses,
            detail=self._detail,
        )

    def _shown(self, judgement: Judgement) -> ChatVerdict | DecisionVerdict | None:
        modes = self.generation.asked.modes
        return chat_verdict(judgement, modes, self._artifact_id, self._text, detail=self._detail)
