"""Second opinions by how the model answers: semantic uncertainty, and Coherent Persuasion.

The artifact says how the question is asked and what its scores are calibrated by
(`detector.opinion_record`). Torch is imported where an opinion is given.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.engines import entails_of
from app.second_opinion.giving import Flagged
from detector.answering import Answering
from detector.errors import ArtifactMismatchError
from detector.manifest import Manifest, Place
from detector.opinion import Opinion
from detector.opinion_record import OpinionRecord, OpinionScore

if TYPE_CHECKING:
    from app.loading import Loaded
    from app.settings import Settings


class ByAnswers:
    """Frees a question whose score has a p-value over the settings' `second_opinion_alpha`."""

    def __init__(self, loaded: Loaded, name: OpinionScore) -> None:
        self._loaded = loaded
        self._name = name
        self._record = record_of(loaded.manifest)
        self._entails = entails_of(loaded.settings)[0]

    async def give(self, flagged: Flagged) -> Opinion:
        loaded, record = self._loaded, self._record
        answering = Answering(
            loaded.codec,
            record.asking,
            flagged.messages,
            loaded.manifest.context.text,
            persuasion=self._name == "persuasion",
            timeout_seconds=loaded.settings.second_opinion_seconds,
        )
        steps = loaded.engine.submit(answering.asks)
        try:
            async for step in steps:
                answering.push(step)
        finally:
            steps.close()
        score, p_value = await asyncio.to_thread(self._judged, answering)
        return Opinion(
            self._name,
            frees=p_value > loaded.settings.second_opinion_alpha,
            score=score,
            p_value=p_value,
            tokens=answering.n_tokens,
        )

    def _judged(self, answering: Answering) -> tuple[float, float]:
        import torch

        from detector.conformal import Calibration

        score = answering.score(self._name, self._entails)
        known = torch.tensor(self._record.calibration.of(self._name), dtype=torch.float64)
        return score, Calibration(known).p_value(score)


def record_of(manifest: Manifest) -> OpinionRecord:
    """Raises ArtifactMismatchError where an artifact has none."""
    if manifest.second_opinion is None:
        raise ArtifactMismatchError(
            "the artifact has no second opinions calibrated: write one that has with `trajguard "
            "second-opinion`, or serve without one",
            param="second_opinion",
        )
    return manifest.second_opinion


def require_uncertainty(settings: Settings, manifest: Manifest, place: Place) -> None:
    """Raises ArtifactMismatchError where none was calibrated at this place."""
    _, nli = entails_of(settings)
    record_of(manifest).require(place.fingerprint.dtype, place.engine, nli)


def require_persuasion(settings: Settings, manifest: Manifest, place: Place) -> None:
    """The same, and of an engine that tells distributions."""
    require_uncertainty(settings, manifest, place)
    if place.engine.name != "own":
        raise ArtifactMismatchError(
            f"the second opinion 'persuasion' compares whole distributions, and {place.engine} "
            "tells none: serve with the own engine, or with the second opinion 'uncertainty'",
            param="second_opinion",
        )
