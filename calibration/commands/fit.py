"""`fit`: collections into an artifact."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import ALPHA, Alpha, Command, set_threads
from calibration.paths import require_collections, require_file
from detector.errors import CalibrationError, TooFewQuestionsError
from detector.trajectory import look_name, patches
from detector.verdict import Guarantee

if TYPE_CHECKING:
    from detector.fitted_look import Part

SCORES = "mahalanobis mahalanobis-last tv-paper tv-reference contrast coe-r coe-c"
"""By name, for `--help` not to wait for torch."""


def _parse_parts(texts: list[str]) -> tuple[Part, ...] | None:
    from detector.fitted_look import Part

    parts = [[Part.parse(one) for one in _each_patch(text)] for text in texts]
    single = [own[0] for own in parts if len(own) == 1]
    if len(set(single)) < len(single):
        raise CalibrationError(
            f"--guard {' '.join(texts)} names one part twice: name each once", param="guard"
        )
    # The first of all patches is a running mean, which may be named beside them.
    return tuple(dict.fromkeys(part for own in parts for part in own)) or None


def _each_patch(text: str) -> list[str]:
    """The parts that a text stands for: "1-64/8:tv-paper" is at all patches of 8 tokens."""
    name, colon, rest = text.partition(":")
    return [f"{look_name(look)}{colon}{rest}" for look in patches(name)]


class Fit(Command):
    """Fit collections into an artifact; takes seconds."""

    collected: CliPositionalArg[list[Path]] = Field(description="collections of in-scope questions")
    out: Path = Field(description="artifact to write, .safetensors")
    scope: str = Field(description="what is in distribution, in words")
    guard: CliVariadicArg[list[str]] = Field(
        default=[],
        description="what the guard consists of, as LOOK:SCORE or LOOK:SCORE:ORDER, such as "
        "prompt:mahalanobis 16:tv-paper:1, or 1-64/8:tv-paper at all patches; without any, "
        "contrast at the looks at the prompt, or without --contrast mahalanobis at every look "
        "collected; "
        "scores: " + ", ".join(SCORES.split()),
    )
    rank: int = Field(default=128, ge=1, description="of the covariances")
    alpha: Alpha = Field(default=ALPHA, description="target false-alarm rate")
    guarantee: Guarantee = Field(default="marginal", description="of the false-alarm rate")
    group_by: str | None = Field(
        default=None,
        description="a threshold for each third by `length`, or for each value of a text field",
    )

    contrast: CliVariadicArg[list[Path]] = Field(
        default=[], description="collections of background questions, to set those in scope against"
    )
    known_templates: bool = Field(
        default=False,
        description="promise for other questions of these very templates alone, not of new ones",
    )

    neighbours: int = Field(
        default=1000, ge=0, description="how many conformal questions are kept to explain flags by"
    )
    keep_questions: bool = Field(
        default=False, description="with their texts, which anybody who has the artifact can read"
    )
    keep_questions_of: CliVariadicArg[list[str]] = Field(
        default=[], description="the texts of these files alone, by their names without ending"
    )

    def run(self) -> None:
        require_collections(self.collected)
        require_collections(self.contrast, "contrast")
        require_file(self.out)
        if not self.neighbours and (self.keep_questions or self.keep_questions_of):
            raise CalibrationError(
                "--keep-questions keeps the texts of neighbours, and --neighbours is 0: leave one "
                "of them out",
                param="keep-questions",
            )
        parts = _parse_parts(self.guard)
        from calibration.fit import FitOptions, fit_material, gather
        from calibration.neighbours import NeighbourOptions, with_neighbours
        from calibration.new_templates import FEW_TEMPLATES, rate_in_words

        set_threads()
        began = time.monotonic()
        options = FitOptions(
            parts=parts,
            rank=self.rank,
            alpha=self.alpha,
            guarantee=self.guarantee,
            group_by=self.group_by,
            known_templates=self.known_templates,
        )
        material = gather(self.collected, options, self.contrast)
        print(material)
        try:
            artifact = fit_material(material, self.scope, options)
        except TooFewQuestionsError:
            if material.pools.n_templates < FEW_TEMPLATES and not self.known_templates:
                # What is calibrated for these templates alone would do to others.
                print(rate_in_words(material, replace(options, known_templates=True)))
            raise
        if self.neighbours:
            kept = NeighbourOptions(
                self.neighbours, self.keep_questions, tuple(self.keep_questions_of)
            )
            pools = material.pools
            artifact = with_neighbours(
                artifact, pools["fit"], pools["conformal"], material.background, kept
            )
        artifact.save(self.out)
        splits = artifact.manifest.splits
        print(
            f"fitted {artifact.manifest.scope!r} in {time.monotonic() - began:.1f} s: "
            f"{splits.fit} fit, {splits.conformal} conformal, {splits.holdout} holdout questions\n"
            f"wrote artifact {artifact.id} to {self.out} "
            f"({self.out.stat().st_size / 1e6:.1f} MB)"
        )
        if material.pools.n_templates < FEW_TEMPLATES:
            print(rate_in_words(material, options))
