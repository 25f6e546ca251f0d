"""The seam of second opinions: what one is shown, and what it has to give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from detector.backend import Ask, Message
from detector.opinion import Opinion
from detector.verdict import Verdict

Name = Literal["uncertainty", "persuasion", "recheck"]
"""The second opinions that there are, as the setting names them."""


@dataclass(frozen=True)
class Flagged:
    """A question that was flagged at its prompt: what was asked for first of it, the verdict, and
    the conversation that its prompt was made of.
    """

    ask: Ask
    verdict: Verdict
    messages: Sequence[Message] = field(repr=False)


class SecondOpinion(Protocol):
    """Gives opinions on flagged questions, on the event loop, by what is loaded."""

    async def give(self, flagged: Flagged) -> Opinion:
        """Whether the question goes on all the same.

        Whatever this raises leaves the question flagged, and cancelling it cancels what it asks
        of the model. `Opinion.seconds` is filled in by who asked for it.
        """
