"""What goes between vLLM's server and the worker of its engine, which are two processes.

A request carries a ticket, which says what is to be judged of it and by what; the worker tells
what has been judged. Both are plain values that JSON can hold. This file knows nothing of vLLM.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from detector.judge import Exclusions, Judgement
from detector.trajectory import END, PROMPT, PROMPT_MEAN, QUESTION, stage
from detector.verdict import LookScore, Verdict

if TYPE_CHECKING:
    from torch import Tensor

KEY = "trajguard"
"""Where a request of vLLM's carries its ticket, among its further arguments (`extra_args`)."""

VARIABLE = "_TRAJGUARD_VLLM"
"""The environment variable by which a server tells its worker how to judge, as JSON."""


TRACED = frozenset({QUESTION, PROMPT_MEAN, PROMPT, 2, END})
"""The looks of the self-test."""


@dataclass(frozen=True)
class Orders:
    """How the worker of a server judges: by the artifact of this path and id, at `alpha` and
    `guarantee`, or at one of `alphas` where a ticket says so. It tells `address` of it, and ends a
    response by `stop_token`, which no other response has.
    """

    artifact: str
    artifact_id: str
    alpha: float
    guarantee: str
    alphas: tuple[float, ...]
    address: str
    stop_token: int


@dataclass(frozen=True)
class Ticket:
    """Of one sequence that vLLM runs for a call: `n` responses to one prompt, all of one `call`.

    It `is_question` where it is the question as it is judged, of which nothing is generated;
    otherwise it is a response with its prompt, and `is_judged` says whether that prompt is what
    is judged. `question` are the positions of the question in what is judged.

    What is `traced` is not judged: its trajectories are told as they are, at the looks of the
    self-test. The last `n_response` tokens of such a prompt are a response that is given.
    """

    call: str
    n: int
    is_question: bool
    is_judged: bool
    question: tuple[int, int] | None = None
    group: str | None = None
    exclusions: tuple[str | None, str | None, str | None] = (None, None, None)
    refuses: tuple[str, ...] = ()
    fails_closed: tuple[str, ...] = ()
    alpha: float | None = None
    traced: bool = False
    n_response: int = 0

    @classmethod
    def read(cls, arguments: Mapping[str, Any] | None) -> Ticket | None:
        """That of a request with these further arguments, if it has one."""
        written = (arguments or {}).get(KEY)
        if written is None:
            return None
        ticket = cls(**written)
        span = None if ticket.question is None else (ticket.question[0], ticket.question[1])
        return replace(ticket, question=span)

    def written(self) -> dict[str, Any]:
        return asdict(self)

    def judgement(self) -> Judgement:
        """Before anything is judged. It is by the worker's own detector unless that is set."""
        return Judgement(
            self.group,
            Exclusions(*self.exclusions),
            frozenset(self.refuses),
            frozenset(self.fails_closed),
        )


def told_trajectory(trajectory: Tensor) -> dict[str, Any]:
    """A mean (L + 1, d), in float32."""
    content = trajectory.float().cpu().contiguous().numpy().tobytes()
    return {"shape": list(trajectory.shape), "content": base64.b64encode(content).decode()}


def read_trajectory(said: Mapping[str, Any]) -> Tensor:
    import torch

    content = bytearray(base64.b64decode(said["content"]))
    return torch.frombuffer(content, dtype=torch.float32).reshape(said["shape"])


def told(judgement: Judgement) -> dict[str, Any]:
    """What has been judged of one response, without the distances behind it."""
    verdict = None
    if judgement.verdict is not None:
        verdict = asdict(replace(judgement.verdict, looks=()))
    return {
        "looks": [asdict(replace(look, distances=())) for look in judgement.looks],
        "verdict": verdict,
    }


def hear(judgement: Judgement, said: Mapping[str, Any]) -> None:
    """Put into a judgement what was told of the same one elsewhere."""
    looks = tuple(LookScore(**{**look, "distances": ()}) for look in said["looks"])
    judgement.looks = list(looks)
    if said["verdict"] is not None:
        judgement.verdict = Verdict(**{**said["verdict"], "looks": looks})


def fail(judgement: Judgement, looks: Sequence[LookScore], alpha: float) -> None:
    """These looks were due and nothing was told of them: what was flagged before stays so."""
    judgement.looks += looks
    verdict, taken = judgement.verdict, tuple(judgement.looks)
    if verdict is not None and verdict.is_ood:
        judgement.verdict = replace(verdict, looks=taken)
        return
    judgement.verdict = Verdict(
        is_ood=None,
        score=None,
        p_value=None,
        threshold=math.nan,
        alpha=alpha,
        stage=stage(looks[-1].look),
        looks=taken,
    )
