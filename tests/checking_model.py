"""A scripted model, over the recorded backend, that answers, criticises and answers again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from detector.backend import Ask
from detector.recheck_record import RecheckCounts, Rechecking, RecheckRecord
from tests.app.recorded import END_TOKEN

CHECK = "Is it right, at p = {p_value}?"
AGAIN = "Again: {question}"
ASKING = Rechecking(check=CHECK, again=AGAIN, max_tokens=32, check_tokens=24)


def record_of(*, allowed: bool = True, asking: Rechecking = ASKING) -> RecheckRecord:
    counts = RecheckCounts(
        n=20,
        n_flagged=4,
        right_before=8,
        right_after=16,
        n_more_ood=0,
        n_sent=20,
        became_right=8,
        became_wrong=0,
        wrong_told=12,
        right_told=8,
        false_told=0,
        n_untold=0,
    )
    return RecheckRecord(
        asking=asking,
        digest=asking.digest,
        counts=counts,
        allowed=allowed,
        why="" if allowed else "answers are worse",
        dtype="float32",
        engine={"name": "own"},  # type: ignore[arg-type]
        sources={"questions": "0" * 64},
    )


@dataclass
class CheckingModel:
    """Answers by what the prompt of a request says; `asked` are the prompts it has read, in order.
    An answer that does not end goes on for as long as it may.
    """

    first: str = "It is 5."
    critique: str = "Incorrect, it is 7."
    second: str = "It is 7."
    by_question: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    ends: bool = True
    asked: list[str] = field(default_factory=list)

    def __call__(self, ask: Ask) -> Sequence[int]:
        prompt = bytes(ask.prompt).decode()
        if not self.asked or self.asked[-1] != prompt:
            self.asked.append(prompt)
        parts = (self.first, self.critique, self.second)
        parts = self.by_question.get(prompt.split("\n", maxsplit=1)[0], parts)
        if "Again: " in prompt:
            return [*parts[2].encode(), *([END_TOKEN] if self.ends else b" ")]
        return [*parts["Is it right" in prompt].encode(), END_TOKEN]
