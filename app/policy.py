"""What a verdict leads to: pure decisions, no HTTP."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from detector.errors import InvalidRequestError
from detector.trajectory import stage
from detector.verdict import Verdict

Mode = Literal["shadow", "flag", "refuse"]
"""shadow: count and log only. flag: tell the client. refuse: answer OOD questions with a
refusal."""

FailPolicy = Literal["closed", "open"]
"""What becomes of a request that cannot be judged, in mode refuse. closed: it is refused.
open: it goes on."""

Decision = Literal["allow", "flag", "refuse", "undecided", "fail_closed", "fail_open"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
MODES: tuple[Mode, ...] = get_args(Mode)


def narrow(configured: Mode, requested: Mode | None) -> Mode:
    """The mode of one request, which may ask for more than is configured, never for less.

    Raises InvalidRequestError when it asks for less.
    """
    if requested is None:
        return configured
    if MODES.index(requested) < MODES.index(configured):
        raise InvalidRequestError(
            f"trajguard.mode {requested!r} is looser than this service's {configured!r}: leave "
            f"it out or ask for {configured!r} or stricter",
            param="trajguard.mode",
        )
    return requested


def decide(verdict: Verdict, mode: Mode, fails_closed: Collection[str]) -> Decision:
    """What to do with a generation after this verdict.

    `fails_closed` are the stages, "prompt" and "response", whose failures refuse it.
    """
    if verdict.failures:
        closed = any(stage(look.look) in fails_closed for look in verdict.failures)
        return "fail_closed" if closed and mode == "refuse" else "fail_open"
    if verdict.is_ood is None:
        return "undecided"
    if not verdict.is_ood:
        return "allow"
    return "refuse" if mode == "refuse" else "flag"
