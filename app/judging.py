"""What has been judged: one event a request, whatever route it came by.

Whoever wants to know of verdicts listens here: the metrics, and the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from app.asking.asked import Operation
from app.policy import Decision, Mode
from detector.backend import Timings
from detector.opinion import Opinion
from detector.trajectory import Look
from detector.verdict import Verdict

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

NotJudged = Literal["empty", "no_look", "no_prompt", "suppressed"]
"""Why a text of a gateway's was let go on without being judged: nothing of it shows, it is shorter
than any look, it is a response whose prompt is not known, or who asked wanted it so."""

NOT_JUDGED_BECAUSE: dict[NotJudged, str] = {
    "empty": "it holds no question",
    "no_look": "it is shorter than the first look",
    "no_prompt": "a response whose prompt is not known (the gateway must show prompts too, to this "
    "replica)",
    "suppressed": "the request says so",
}


@dataclass(frozen=True)
class Judged:
    """What came of one request: the verdict of its choice that is most OOD, None where it
    ended before any look. `error` is the code of the error that ended it, if one did; then
    there is no decision, for its client was told none. `n_prompt` and `n_response` count
    tokens read and generated; `first_token_seconds` from its admission to the first token or
    refusal, if one came. `question` is what the user said, which no line and no label may show.
    `key_id`, `model` and `artifact` say who asked whom, and by what it was judged.

    `stopped_at` is the look that refused it, where that ended what was generated, and `n_saved` the
    tokens that could still have come. `timings` are those of its choices that ran, `seconds` all
    the time that it took. `operation` says what was generated, None where nothing was to be,
    `asked_model` by which name the client called the model, `response_id` what it was answered as.
    `opinion` is the second one of a flagged question: `verdict` is what was judged before it.
    `places` are where the looks of what was flagged lie among the artifact's neighbours.
    """

    request_id: str
    mode: Mode
    verdict: Verdict | None
    decision: Decision | None
    n_prompt: int
    n_response: int
    first_token_seconds: float | None
    error: str | None = None
    question: str = field(default="", repr=False)
    key_id: str | None = None
    model: str = ""
    artifact: str = ""
    stopped_at: Look | None = None
    n_saved: int = 0
    timings: tuple[Timings, ...] = ()
    seconds: float = 0.0
    operation: Operation | None = None
    asked_model: str | None = None
    response_id: str | None = None
    opinion: Opinion | None = None
    places: Mapping[Look, Tensor] = field(default_factory=dict, repr=False)


def log_judged(event: Judged) -> None:
    """A line for each verdict, never the question."""
    verdict = event.verdict
    if verdict is None:
        return
    opinion = event.opinion
    failures = sorted({str(look.failure) for look in verdict.failures})
    said = {
        "request_id": event.request_id,
        "decision": event.decision or event.error,
        "mode": event.mode,
        "stage": verdict.stage,
        "score": verdict.score,
        "p_value": verdict.p_value,
        "n_prompt": event.n_prompt,
        "n_response": event.n_response,
        "failures": failures,
        "second_opinion": None if opinion is None else opinion.outcome,
    }
    log.log(
        logging.WARNING if failures else logging.INFO,
        "%s decision=%s mode=%s stage=%s score=%s p=%s tokens=%d+%d%s%s",
        event.request_id,
        said["decision"],
        event.mode,
        verdict.stage,
        verdict.score if verdict.score is None else f"{verdict.score:.3f}",
        verdict.p_value if verdict.p_value is None else f"{verdict.p_value:.4f}",
        event.n_prompt,
        event.n_response,
        "" if opinion is None else f" {opinion.name}={opinion.outcome}",
        f" failure={', '.join(failures)}" if failures else "",
        extra=said,
    )


def log_not_judged(request_id: str, reason: NotJudged) -> None:
    """A line for what was let go on without a verdict, a warning where something is set wrongly."""
    level = logging.WARNING if reason == "no_prompt" else logging.INFO
    log.log(level, "%s not judged: %s", request_id, NOT_JUDGED_BECAUSE[reason])
