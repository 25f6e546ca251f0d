"""`report`: what an artifact does on questions that it was not fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Alpha, Command
from calibration.paths import require_artifact, require_collections, require_file
from detector.atomic import write_atomically
from detector.errors import CalibrationError
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

    html: Path | None = Field(
        default=None, description="file to write it to as a page, with figures; asks for no other"
    )
    texts: bool = Field(
        default=False, description="the page shows what the worst false alarms say, not keys alone"
    )
    requests_a_day: CliVariadicArg[list[Annotated[int, Field(ge=1)]]] = Field(
        default=[1_000, 10_000, 100_000, 1_000_000],
        description="traffic that the page counts false alarms of",
    )

    def run(self) -> None:
        require_artifact(self.artifact)
        require_collections(self.collected)
        for name in ("ood", "unseen_variations", "contrast"):
            require_collections(getattr(self, name), name.replace("_", "-"))
        if self.texts and self.html is None:
            raise CalibrationError("--texts is of the page: give --html too", param="texts")
        for name, path in (("json", self.json_file), ("html", self.html)):
            if path is not None:
                require_file(path, name)
        from calibration.reporting.judged import judge
        from calibration.reporting.report import ReportOptions, reported
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
        at = artifacts.Artifact(detector, artifact.manifest, artifact.id)
        judged = judge(at, self.collected, options.ood)
        report = reported(judged, self.collected, options)
        print(report)
        if artifact.manifest.second_opinion is not None:
            from calibration.reporting.second_opinion import joint_rates

            print(f"\n{joint_rates(artifact.manifest.second_opinion)}")
        if self.json_file is not None:
            write_atomically(self.json_file, report.as_json().encode())
        parts = {f"group {group.name!r}": group.n_holdout for group in report.groups}
        holdout = report.holdout
        what = "templates" if holdout.n_units < holdout.n_questions else "questions"
        suggested = suggestion(report.alpha, holdout.n_units, parts, what)
        if suggested:
            print(f"\n{suggested}")
        if self.html is not None:
            from calibration.reporting.details import details
            from calibration.reporting.page import page

            found = details(judged, texts=self.texts)
            written = page(report, found, self.requests_a_day, suggested)
            write_atomically(self.html, written.encode())
