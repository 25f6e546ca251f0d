"""The verdict in response headers, which every client can read, whatever it makes of bodies."""

from __future__ import annotations

from app.policy import Modes, decision_of
from detector.judge import Judgement

DECISION = "x-trajguard-decision"
P_VALUE = "x-trajguard-p-value"
ARTIFACT = "x-trajguard-artifact"
SECOND_OPINION = "x-trajguard-second-opinion"
VERDICT_HEADERS = (DECISION, P_VALUE, ARTIFACT, SECOND_OPINION)


def verdict_headers(
    judgement: Judgement, modes: Modes, artifact_id: str, *, detail: bool
) -> dict[str, str]:
    """What is known when the response begins: of a stream, by the looks at the prompt. None in
    shadow mode; without `detail`, no p-value.
    """
    verdict = judgement.shown
    if set(modes) == {"shadow"} or verdict is None:
        return {}
    headers = {
        DECISION: decision_of(judgement),
        ARTIFACT: artifact_id,
    }
    if detail and verdict.p_value is not None:
        headers[P_VALUE] = f"{verdict.p_value:.6g}"
    if judgement.opinion is not None:
        headers[SECOND_OPINION] = f"{judgement.opinion.name}:{judgement.opinion.outcome}"
    return headers
