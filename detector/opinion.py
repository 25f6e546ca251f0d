"""What a second opinion says of a question that was flagged at its prompt.

Plain values: who gives one, and how, is `app.second_opinion`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from detector.verdict import LookScore


@dataclass(frozen=True)
class Opinion:
    """`frees`: the flag at the prompt is lifted, and the question goes on as one that was allowed.

    `name` is the second opinion's, `score` its own (higher is more OOD) with the conformal
    `p_value`, None where it has none. `tokens` counts those read and generated for it, in
    `seconds` of waiting. `failure` says why it could not be given, and then it frees nothing.

    `reason` says why it was held, where the second opinion has more to say than its score.

    `response` is the answer that goes out, in the model's tokens, where the second opinion has made
    it; None where the question is yet to be answered. `finish` says why it ended: its last token is
    the one that ended it, or one more than it may have would have followed. `looks` are its own at
    the response, which have been judged.
    """

    name: str
    frees: bool
    score: float | None = None
    p_value: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    failure: str | None = None
    reason: str | None = None
    response: tuple[int, ...] | None = field(default=None, repr=False)
    finish: Literal["stop", "length"] = "stop"
    looks: tuple[LookScore, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.failure is not None and self.frees:
            raise ValueError("an opinion that could not be given frees nothing")

    @property
    def outcome(self) -> str:
        """In one word: freed, held or failed."""
        if self.failure is not None:
            return "failed"
        return "freed" if self.frees else "held"
