"""Why a verdict is as it is, as clients read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from app.loading import Loaded
from app.wire.explanation import (
    LayerShare,
    NearKind,
    NearQuestion,
    UsualDistance,
    VerdictExplanation,
)
from detector.trajectory import Look, look_name
from detector.verdict import Verdict

if TYPE_CHECKING:
    from torch import Tensor


def verdict_explanation(
    loaded: Loaded, verdict: Verdict, places: Mapping[Look, Tensor], *, texts: bool
) -> VerdictExplanation:
    """Of a verdict by what is loaded; the texts of calibration questions, where they are kept, only
    if `texts`. Takes a millisecond or two: not for the event loop.
    """
    # The application starts without torch.
    from detector.explanation import explain

    said = explain(loaded.detector, loaded.manifest, verdict, places)
    return VerdictExplanation(
        look=None if said.look is None else look_name(said.look),
        name=said.score_name,
        score=said.score,
        layers=[
            LayerShare(
                layer=each.layer,
                share=each.share,
                measured=each.measured,
                usual=each.usual,
                beyond=each.beyond,
            )
            for each in said.shares
        ],
        neighbours=[
            NearQuestion(
                id=each.id,
                file=each.file,
                kind=each.kind,
                distance=each.distance,
                text=each.text if texts else None,
            )
            for each in said.neighbours
        ],
        usual_distance=(
            None if said.usual is None else UsualDistance(median=said.usual[0], most=said.usual[1])
        ),
        out_of_scope_kind=(
            None
            if said.kind is None
            else NearKind(
                name=said.kind.name,
                n_questions=said.kind.n_questions,
                distance=said.kind.distance,
            )
        ),
        note=said.note,
    )
