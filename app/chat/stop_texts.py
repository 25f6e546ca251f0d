"""Stop texts: end a response before the first one, never showing part of it."""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Fed a response piece by piece, passes on what can no longer belong to a stop text.

    The first to be complete ends the response; of several that end at one letter, the longest.
    A letter costs the same however long the texts are: each is matched as Knuth, Morris and Pratt
    do (https://doi.org/10.1137/0206024).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._matches = [_Match(text) for text in texts]
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that is safe to show now; after `found` there is no more."""
        if not self._matches:
            return piece
        for n, letter in enumerate(piece, start=1):
            complete = [match.length for match in self._matches if match.push(letter)]
            if complete:
                self.found = True
                self._held += piece[:n]
                return self._release(len(self._held) - max(complete))
        self._held += piece
        return self._release(len(self._held) - max(match.n for match in self._matches))

    def flush(self) -> str:
        """What was held back, once the response has ended."""
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        return shown


class _Match:
    """How much of one text, `n` letters, the letters pushed so far end with."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        self.n = 0
        self._text = text
        self._shorter = _borders(text)

    def push(self, letter: str) -> bool:
        """Whether the text is complete."""
        while self.n and self._text[self.n] != letter:
            self.n = self._shorter[self.n - 1]
        self.n += self._text[self.n] == letter
        return self.n == self.length


def _borders(text: str) -> list[int]:
    """For each beginning of a text: the longest shorter one that it ends with, in letters."""
    borders, n = [0], 0
    for letter in text[1:]:
        while n and text[n] != letter:
            n = borders[n - 1]
        n += text[n] == letter
        borders.append(n)
    return borders
