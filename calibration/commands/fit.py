"""`fit`: collections into an artifact."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Alpha, Command, set_threads
from detector.detector import Part
from detector.errors import CalibrationError
from detector.scores import SCORES
from detector.verdict import Guarantee


def _parse_parts(texts: list[str]) -> tuple[Part, ...] | None:
    parts = tuple(Part.parse(text) for text in texts)
    if len(set(parts)) < len(parts):
        raise CalibrationError(
            f"--guard {' '.join(texts)} names one part twice: name each once", param="guard"
        )
    return parts or None


class Fit(Command):
    """Fit collections into an artifact; takes seconds."""

    collected: CliPositionalArg[list[Path]] = Field(description="collections of in-scope questions")
    out: Path = Field(description="artifact to write, .safetensors")
    scope: str = Field(description="what is in distribution, in words")
    guard: CliVariadicArg[list[str]] = Field(
        default=[],
        description="what the guard consists of, as LOOK:SCORE or LOOK:SCORE:ORDER, such as "
        "prompt:mahalanobis 16:tv-paper:1; without any, mahalanobis at every look collected; "
        "scores: " + ", ".join(SCORES),
    )
    rank: int = Field(default=128, ge=1, description="of the covariances")
    alpha: Alpha = Field(default=0.05, description="target false-alarm rate")
    guarantee: Guarantee = Field(default="marginal", description="of the false-alarm rate")
    group_by: str | None = Field(
        default=None,
        description="a threshold for each third by `length`, or for each value of a text field",
    )

    def run(self) -> None:
        parts = _parse_parts(self.guard)
        from calibration.fit import FitOptions, fit

        set_threads()
        began = time.monotonic()
        artifact = fit(
            self.collected,
            self.scope,
            FitOptions(
                parts=parts,
                rank=self.rank,
                alpha=self.alpha,
                guarantee=self.guarantee,
                group_by=self.group_by,
            ),
        )
        artifact.save(self.out)
        splits = artifact.manifest.splits
        print(
            f"fitted {artifact.manifest.scope!r} in {time.monotonic() - began:.1f} s: "
            f"{splits.fit} fit, {splits.conformal} conformal, {splits.holdout} holdout questions\n"
            f"wrote artifact {artifact.id} to {self.out} "
            f"({self.out.stat().st_size / 1e6:.1f} MB)"
        )
