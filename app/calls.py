"""What gateways have shown of calls that are under way: a response comes without its prompt, and
is joined to it here by the call's id.

In memory alone, for a while, and never more than a bound: prompts are nobody's to keep.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from app.asking.asked import Asked
from app.asking.score import Conversation

CALL_SECONDS = 900.0
"""How long a call is known after its prompt came; a response that takes longer is not judged."""

MAX_CALL_BYTES = 64 * 2**20
_BYTES_A_CALL = 8192
"""What a call takes beside its text, at most."""

MAX_KNOWN = 8
"""Verdicts that are kept of one call: of its prompt, and of its response as far as looks saw it."""


@dataclass
class Call:
    """A call's conversations, and what has been judged of it: what was read to its judgement."""

    conversations: tuple[Conversation, ...]
    began: float
    known: OrderedDict[bytes, Asked] = field(default_factory=OrderedDict)

    @property
    def n_bytes(self) -> int:
        texts = [message["content"] for each in self.conversations for message in each.messages]
        return _BYTES_A_CALL + sum(len(text.encode()) for text in texts)

    def learn(self, key: bytes, asked: Asked) -> None:
        self.known[key] = _told_of(asked)
        if len(self.known) > MAX_KNOWN:
            self.known.popitem(last=False)


class Calls:
    """The calls under way, the oldest of which are forgotten first."""

    def __init__(
        self, max_bytes: int = MAX_CALL_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._calls: OrderedDict[str, Call] = OrderedDict()
        self._n_bytes = 0

    def begin(self, call_id: str | None, conversations: Sequence[Conversation]) -> Call:
        """The call whose prompt this is: the same one as before where that says the same."""
        call = Call(tuple(conversations), self._clock())
        if call_id is None:
            return call
        before = self.find(call_id)
        if before is not None and before.conversations == call.conversations:
            return before
        self._forget(call_id)
        self._calls[call_id] = call
        self._n_bytes += call.n_bytes
        while self._n_bytes > self._max_bytes:
            self._forget(next(iter(self._calls)))
        return call

    def find(self, call_id: str | None) -> Call | None:
        oldest = self._clock() - CALL_SECONDS
        while self._calls and next(iter(self._calls.values())).began < oldest:
            self._forget(next(iter(self._calls)))
        return None if call_id is None else self._calls.get(call_id)

    def _forget(self, call_id: str) -> None:
        call = self._calls.pop(call_id, None)
        if call is not None:
            self._n_bytes -= call.n_bytes


def _told_of(asked: Asked) -> Asked:
    """What is told of it, without what it was made of: tokens, distances, the detector."""
    (judgement,) = asked.judgements
    verdict = judgement.verdict
    assert verdict is not None
    looks = [replace(look, distances=()) for look in judgement.looks]
    told = replace(judgement, looks=looks, verdict=replace(verdict, looks=tuple(looks)))
    return replace(asked, asks=(), judgements=(replace(told, detector=None),), conversations=())
