"""One request under way: its choices' pieces as they come, and what is said of it at the end."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

from app.asking.asked import Asked
from app.chat.choice import Choice, Piece
from app.chat.hold_back import HoldBack
from app.chat.tool_calls import Calls
from app.judging import Judged
from app.policy import decision_of
from app.second_opinion.reconsidered import Reconsidered
from app.steps import Steps
from detector.backend import Ask, Codec, Step, Timings
from detector.errors import TrajGuardError
from detector.judge import Judgement
from detector.trajectory import END


class Generation:
    """The responses to what was asked, submitted just before. `close` ends what is left of it
    and tells `judged`, once, what came of it.
    """

    def __init__(
        self,
        asked: Asked,
        steps: Steps | Reconsidered,
        codec: Codec,
        judged: Callable[[Judged], None],
        *,
        request_id: str,
        stop_texts: Sequence[str] = (),
        may_call: bool = False,
    ) -> None:
        self.asked = asked
        self._steps = steps
        self._judged = judged
        self._request_id = request_id
        self._began = time.perf_counter()
        self._first_token_seconds: float | None = None
        self._error: TrajGuardError | None = None
        self.response_id: str | None = None
        # Of those that have had a token or ended; when the first token came, of those that go on.
        self._timings: dict[Ask, Timings] = {}
        self._first_tokens: dict[Ask, float] = {}
        self._n_saved = 0
        self._closed = False
        self._choices = {
            ask: Choice(index, codec.stream(), stop_texts, ask.sampling.min_tokens)
            for index, ask in enumerate(asked.asks)
        }
        # By choice.
        self._hold_backs = [
            HoldBack.of(judgement) if asked.hold_back else None for judgement in asked.judgements
        ]
        self._calls = [Calls() if may_call else None for _ in asked.asks]

    @property
    def n_prompt(self) -> int:
        """Tokens of the prompts; one counts once, however many choices were made of it."""
        return sum(len(ask.prompt) for ask in self.asked.asks if ask.first is None)

    @property
    def n_response(self) -> int:
        """Tokens generated so far, of all choices."""
        return sum(choice.n_tokens for choice in self._choices.values())

    @property
    def judgement(self) -> Judgement:
        """That of the choice that is most OOD, or could not be judged."""
        return max(self.asked.judgements, key=concern)

    async def pieces(self) -> AsyncGenerator[Piece]:
        """The choices' responses as they come; the last piece of each says why it ended.

        Closing this ends the generation. Raises DeadlineError, EngineError when the
        engine fails, and NotReadyError when the service stops before the end.
        """
        try:
            async for step in self._steps:
                if self._first_token_seconds is None and step.finish != "traced":
                    self._first_token_seconds = time.perf_counter() - self._began
                choice = self._choices[step.ask]
                self._time(step)
                piece = choice.push(step)
                if piece is None:
                    continue
                if piece.ending is not None:
                    self._steps.leave(step.ask)
                    self._leave(step.ask)
                    if piece.ending == "refused":
                        self._n_saved += self._could_still_come(choice, step.ask)
                hold_back = self._hold_backs[choice.index]
                if hold_back is not None:
                    piece = hold_back.push(piece, choice.n_tokens)
                calls = self._calls[choice.index]
                if piece is not None and calls is not None:
                    piece = calls.push(piece)
                if piece is not None:
                    yield piece
        except TrajGuardError as error:
            self._error = error
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Cancel what still runs, and tell what came of the request, once."""
        if self._closed:
            return
        self._closed = True
        self._steps.close()
        for ask in tuple(self._first_tokens):
            self._leave(ask)
        judgement = self.judgement
        verdict, error = judgement.shown, self._error
        decided = verdict if error is None else None
        refused_at = None if decided is None else judgement.ended_at
        self._judged(
            Judged(
                request_id=self._request_id,
                mode=self.asked.modes.at(None if verdict is None else verdict.stage),
                verdict=verdict,
                decision=None if decided is None else decision_of(judgement),
                n_prompt=self.n_prompt,
                n_response=self.n_response,
                first_token_seconds=self._first_token_seconds,
                error=None if error is None else error.code,
                question=self.asked.question,
                stopped_at=refused_at,
                n_saved=0 if refused_at is None else self._n_saved,
                timings=tuple(self._timings.values()),
                seconds=time.perf_counter() - self._began,
                operation=self.asked.operation,
                asked_model=self.asked.model,
                response_id=self.response_id,
                opinion=judgement.opinion,
                places=judgement.places,
            )
        )

    def _time(self, step: Step) -> None:
        if step.timings is None:
            return
        self._timings[step.ask] = step.timings
        if step.finish is None:
            self._first_tokens[step.ask] = time.perf_counter()
        else:
            self._first_tokens.pop(step.ask, None)

    def _leave(self, ask: Ask) -> None:
        """One that goes on is left before its end, of which no step tells."""
        began = self._first_tokens.pop(ask, None)
        if began is not None:
            decode = time.perf_counter() - began
            self._timings[ask] = replace(self._timings[ask], decode=decode)

    def _could_still_come(self, choice: Choice, ask: Ask) -> int:
        """Tokens that a refused choice could have gone on to: none, once it had ended."""
        ended = self.asked.judgements[choice.index].ended_at == END
        return 0 if ended else ask.max_tokens - choice.n_tokens


def concern(judgement: Judgement) -> tuple[bool, bool, float]:
    """Flagged before not judged before not flagged, then by score."""
    verdict = judgement.final
    if verdict is None:
        return False, False, -math.inf
    score = -math.inf if verdict.score is None else verdict.score
    return bool(verdict.is_ood), bool(verdict.failures), score
