"""`report`: what an artifact does on questions that it was not fitted to."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Alpha, Command
from calibration.paths import require_artifact, require_collections
from detector.verdict import Guarantee


class Report(Command):
    """False alarms on holdout questions, and what is found of OOD questions."""

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    collected: CliPositionalArg[list[Path]] = Field(description="collections that it was fitted to")
    ood: CliVariadicArg[list[Path]] = Field(default=[], description="collections of OOD questions")
    alpha: Alpha | None = Field(default=None, description="instead of the artifact's")
    guarantee: Guarantee | None = Field(default=None, description="instead of the artifact's")

    def run(self) -> None:
        require_artifact(self.artifact)
        require_collections(self.collected)
        require_collections(self.ood, "ood")
        from calibration.report import report
        from calibration.suggestion import suggestion
        from detector import artifact as artifacts

        artifact = artifacts.load(self.artifact)
        detector = artifact.detector.at(
            self.alpha or artifact.detector.alpha,
            self.guarantee or artifact.detector.guarantee,
        )
        judged = artifacts.Artifact(detector, artifact.manifest, artifact.id)
        reported = report(judged, self.collected, self.ood)
        print(reported)
        parts = {f"group {group.name!r}": group.n_holdout for group in reported.groups}
        if suggested := suggestion(reported.alpha, reported.n_holdout, parts):
            print(f"\n{suggested}")
