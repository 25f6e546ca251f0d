"""`report`: what an artifact does on questions that it was not fitted to."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Alpha, Command
from calibration.paths import require_artifact, require_collections, require_file
from detector.atomic import write_atomically
from detector.verdict import Guarantee


class Report(Command):
    """False alarms on holdout questions, and what is found of OOD questions."""

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    collected: CliPositionalArg[list[Path]] = Field(description="collections that it was fitted to")
    ood: CliVariadicArg[list[Path]] = Field(default=[], description="collections of OOD questions")
    unseen_variations: CliVariadicArg[list[Path]] = Field(
        default=[], description="collections of what `vary --held-out` wrote"
    )
    unseen_templates: bool = Field(
        default=False, description="leave templates out and refit: slow for large collections"
    )
    contrast: CliVariadicArg[list[Path]] = Field(
        default=[],
        description="collections of background questions that it was fitted with, to leave kinds "
        "out of and refit",
    )
    rank: int = Field(default=128, ge=1, description="of the covariances of refits")
    alpha: Alpha | None = Field(default=None, description="instead of the artifact's")
    guarantee: Guarantee | None = Field(default=None, description="instead of the artifact's")
    json_file: Path | None = Field(
        default=None, alias="json", description="file to write it to as JSON"
    )

    def run(self) -> None:
        require_artifact(self.artifact)
        require_collections(self.collected)
        for name in ("ood", "unseen_variations", "contrast"):
            require_collections(getattr(self, name), name.replace("_", "-"))
        if self.json_file is not None:
            require_file(self.json_file, "json")
        from calibration.reporting.report import ReportOptions, report
        from calibration.suggestion import suggestion
        from detector import artifact as artifacts

        artifact = artifacts.load(self.artifact)
        detector = artifact.detector.at(
            self.alpha or artifact.detector.alpha,
            self.guarantee or artifact.detector.guarantee,
        )
        options = ReportOptions(
            ood=tuple(self.ood),
            unseen_variations=tuple(self.unseen_variations),
            unseen_templates=self.unseen_templates,
            contrast=tuple(self.contrast),
            rank=self.rank,
        )
        judged = artifacts.Artifact(detector, artifact.manifest, artifact.id)
        reported = report(judged, self.collected, options)
        print(reported)
        if self.json_file is not None:
            write_atomically(self.json_file, reported.as_json().encode())
        parts = {f"group {group.name!r}": group.n_holdout for group in reported.groups}
        holdout = reported.holdout
        what = "templates" if holdout.n_units < holdout.n_questions else "questions"
        if suggested := suggestion(reported.alpha, holdout.n_units, parts, what):
            print(f"\n{suggested}")
