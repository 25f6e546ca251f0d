"""Running sums as they were where patches begin: a patch's own mean is of what was added since.

Nothing is kept a token: of each response that runs, one sum for each patch that has begun and not
ended, which is one in all where patches follow each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence

import torch
from torch import Tensor

from detector.engine.run import Run
from detector.trajectory import END, PROMPT_LOOKS, Look, in_order, left_out, taken_at


class Borders:
    """Where the patches among some looks begin, and which looks are taken where."""

    def __init__(self, looks: Collection[Look]) -> None:
        self._at: dict[int, list[Look]] = {}
        for look in in_order(set(looks) - PROMPT_LOOKS - {END}):
            self._at.setdefault(taken_at(look), []).append(look)
        # After how many tokens patches begin, and after how many the last of these ends.
        self._until: dict[int, int] = {}
        for look in looks:
            if before := left_out(look):
                self._until[before] = max(taken_at(look), self._until.get(before, 0))

    def looks_at(self, n_tokens: int) -> Sequence[Look]:
        """The looks to take on a response that goes on, of so many tokens."""
        return self._at.get(n_tokens, ())

    def keep(
        self,
        runs: Sequence[Run],
        ended: Container[Run],
        means_of: Callable[[Sequence[Run]], Tensor],
    ) -> None:
        """Before each of these, but those that `ended`, draws its next token. `means_of` gives
        running means (n, L + 1, d), of those runs alone that are where a patch begins.
        """
        if not self._until:
            return
        due = [run for run in runs if len(run.generated) + 1 in self._until and run not in ended]
        if not due:
            return
        for run, mean in zip(due, means_of(due), strict=True):
            n_tokens = len(run.generated) + 1
            run.borders = {
                before: kept
                for before, kept in run.borders.items()
                if self._until[before] > n_tokens
            }
            run.borders[n_tokens] = mean * n_tokens

    @staticmethod
    def since(look: Look, runs: Sequence[Run], means: Tensor) -> Tensor:
        """What a look sees of responses whose running means when it is taken are (n, L + 1, d)."""
        before, n_tokens = left_out(look), taken_at(look)
        if not before:
            return means
        kept = torch.stack([run.borders[before] for run in runs])
        return (means * n_tokens - kept) / (n_tokens - before)
