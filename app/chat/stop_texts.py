"""Stop texts: end a response before the first one, never showing part of it."""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Fed a response piece by piece, passes on what can no longer belong to a stop text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that is safe to show now; after `found` there is no more."""
        self._held += piece
        starts = [start for text in self._texts if (start := self._held.find(text)) >= 0]
        if starts:
            self.found = True
            return self._release(min(starts))
        keep = max((self._overlap(text) for text in self._texts), default=0)
        return self._release(len(self._held) - keep)

    def flush(self) -> str:
        """What was held back, once the response has ended."""
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        return shown

    def _overlap(self, text: str) -> int:
        """The longest end of what is held that begins `text`."""
        longest = min(len(text) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(text[:n])), 0)
