"""Text held back until the look that covers it has been taken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from app.chat.choice import Piece
from detector.judge import Judgement
from detector.trajectory import END, PROMPT_LOOKS, Look, taken_at


class HoldBack:
    """Passes on one response's pieces, each once the looks have let its tokens through.

    A look at t tokens is taken before token t is shown and covers all up to it, as that at a patch
    does which ends there; the one at the end covers the rest. What no look will cover is passed on
    at once, and what one refuses never.
    """

    def __init__(self, looks: Iterable[Look]) -> None:
        later = set(looks) - PROMPT_LOOKS
        self._waits_for_end = END in later
        self._counts = sorted({taken_at(look) for look in later - {END}})
        self._held: list[tuple[int, Piece]] = []

    @classmethod
    def of(cls, judgement: Judgement) -> HoldBack:
        """By the looks that decide on a response."""
        assert judgement.detector is not None
        looks = {fitted.look for fitted in judgement.detector.looks}
        return cls(look for look in looks if judgement.exclusions.at(look) is None)

    def push(self, piece: Piece, n_tokens: int) -> Piece | None:
        """What may be shown of a response that has `n_tokens` by now, `piece` the last of it."""
        if piece.ending == "refused":
            return piece
        self._held.append((n_tokens, piece))
        n = len(self._held)
        if piece.ending is None:
            passed = self._passed(n_tokens)
            n = sum(n_by_then <= passed for n_by_then, _ in self._held)
        shown, self._held = [each for _, each in self._held[:n]], self._held[n:]
        if not shown:
            return None
        return replace(
            shown[-1],
            text="".join(each.text for each in shown),
            logprobs=tuple(logprob for each in shown for logprob in each.logprobs),
        )

    def _passed(self, n_tokens: int) -> int:
        """The number of tokens that have been let through."""
        if not self._waits_for_end and n_tokens >= max(self._counts, default=0):
            return n_tokens
        return max((count for count in self._counts if count <= n_tokens), default=0)
