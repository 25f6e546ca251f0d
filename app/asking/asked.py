"""What one HTTP request asks of the backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.policy import Modes
from detector.backend import Ask, Message
from detector.conversation import user_turns
from detector.judge import Judgement

Operation = Literal["chat", "text_completion"]
"""What is generated, by OpenTelemetry's names."""


@dataclass(frozen=True)
class Asked:
    """One response or more, to one prompt or more, each with its judgement to be.

    `alpha` is that of the detector to judge by, the service's if None. `hold_back`: show text only
    after the look that covers it. `question` is what the user said, for the audit log's HMAC.
    `operation` is None where nothing is to be generated, `model` the name that the client gave.
    `conversations` are what each ask's prompt was made of, for a second opinion.
    """

    asks: tuple[Ask, ...]
    judgements: tuple[Judgement, ...]
    modes: Modes
    alpha: float | None = None
    hold_back: bool = False
    question: str = ""
    operation: Operation | None = None
    model: str | None = None
    conversations: tuple[Sequence[Message], ...] = field(default=(), repr=False)


def asked_by(messages: Sequence[Message]) -> str:
    """What the user of a conversation said, a blank line between the turns."""
    return "\n\n".join(user_turns(messages))
