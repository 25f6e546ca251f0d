"""An artifact's detector as the settings want it: at their alphas and guarantee."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.settings import Settings

if TYPE_CHECKING:
    from detector.artifact import Artifact
    from detector.detector import Detector


def detector_of(settings: Settings, artifact: Artifact) -> Detector:
    """An artifact's detector at the alpha and guarantee that the settings ask for, if any.

    Raises TooFewQuestionsError when it cannot keep them.
    """
    return artifact.detector.at(
        settings.alpha or artifact.detector.alpha,
        settings.guarantee or artifact.detector.guarantee,
    )


def others_of(settings: Settings, artifact: Artifact) -> dict[float, Detector]:
    """The same at the alphas that a request may ask for. Raises as `detector_of` does."""
    guarantee = settings.guarantee or artifact.detector.guarantee
    return {alpha: artifact.detector.at(alpha, guarantee) for alpha in settings.alphas}
