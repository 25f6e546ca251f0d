"""What a verdict leads to: pure decisions, no HTTP."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

from detector.errors import InvalidRequestError
from detector.judge import Judgement
from detector.trajectory import stage
from detector.verdict import Verdict

Mode = Literal["shadow", "flag", "refuse"]
"""shadow: count and log only. flag: tell the client. refuse: answer OOD questions with a
refusal."""

FailPolicy = Literal["closed", "open"]
"""What becomes of a request that cannot be judged, in mode refuse. closed: it is refused.
open: it goes on."""

RefusalStyle = Literal["content", "refusal", "error"]
"""Where the text of a refusal stands: in `content` and in `refusal`, in `refusal` alone, or in an
error (400, `content_filter`)."""

Decision = Literal["allow", "flag", "refuse", "undecided", "fail_closed", "fail_open"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
MODES: tuple[Mode, ...] = get_args(Mode)


class Modes(NamedTuple):
    """The mode in which a request's prompt is judged, and that of its response."""

    prompt: Mode
    response: Mode

    def at(self, stage: str | None) -> Mode:
        """That of a stage; of None, where nothing was judged, the prompt's."""
        return self.response if stage == "response" else self.prompt

    @property
    def refuses(self) -> frozenset[str]:
        """The stages at which an OOD request is refused."""
        modes = {"prompt": self.prompt, "response": self.response}
        return frozenset(stage for stage, mode in modes.items() if mode == "refuse")


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


def stricter(configured: Mode, asked: Mode | None) -> Mode:
    """The stricter of a mode and of one that may be asked for."""
    return configured if asked is None else max(configured, asked, key=MODES.index)


def decide(verdict: Verdict, refuses: Collection[str], fails_closed: Collection[str]) -> Decision:
    """What to do with a generation after this verdict.

    `refuses` are the stages, "prompt" and "response", whose flags refuse it, and `fails_closed`
    those of them whose failures do.
    """
    if verdict.failures:
        failed = {stage(look.look) for look in verdict.failures}
        return "fail_closed" if failed.intersection(refuses, fails_closed) else "fail_open"
    if verdict.is_ood is None:
        return "undecided"
    if not verdict.is_ood:
        return "allow"
    return "refuse" if verdict.flagged_stages.intersection(refuses) else "flag"


def decision_of(judgement: Judgement) -> Decision:
    """What to do with a generation that has been judged, with its second opinion if it has one."""
    verdict = judgement.final
    assert verdict is not None
    return decide(verdict, judgement.refuses, judgement.fails_closed)
