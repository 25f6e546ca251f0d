"""The second opinions that there are, each with what it needs and what makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.second_opinion.by_answers import ByAnswers, require_persuasion, require_uncertainty
from app.second_opinion.by_checking import ByChecking, require_recheck
from app.second_opinion.giving import Name, SecondOpinion
from app.settings import Settings
from detector.manifest import Manifest, Place

if TYPE_CHECKING:
    from app.loading import Loaded


@dataclass(frozen=True)
class Kind:
    """`require` raises ArtifactMismatchError where an artifact's manifest has not what the second
    opinion needs of it at the place where it is served; `make` makes one by what is loaded. One
    that `answers` frees a question with an answer of its own, and is asked for where one is to be
    sent.
    """

    require: Callable[[Settings, Manifest, Place], None]
    make: Callable[[Loaded], SecondOpinion]
    answers: bool = False


KINDS: dict[Name, Kind] = {
    "uncertainty": Kind(require_uncertainty, lambda loaded: ByAnswers(loaded, "uncertainty")),
    "persuasion": Kind(require_persuasion, lambda loaded: ByAnswers(loaded, "persuasion")),
    "recheck": Kind(require_recheck, ByChecking, answers=True),
}


def require_second_opinion(settings: Settings, manifest: Manifest, place: Place) -> None:
    """Raises as `Kind.require` does, where the settings name a second opinion."""
    if settings.second_opinion != "none":
        KINDS[settings.second_opinion].require(settings, manifest, place)
