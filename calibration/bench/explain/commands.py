"""The command: kinds of nearest questions, within scope and out of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Command
from calibration.paths import require_artifact, require_collections


class Kinds(Command):
    """How often an artifact's neighbours are of one kind, each left out in turn; and with
    collections that it was fitted to and --contrast, how often the nearest kind out of scope is
    that of background questions left out, a fold at a time.
    """

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    collected: CliVariadicArg[list[Path]] = Field(
        default=[], description="collections that it was fitted to"
    )
    contrast: CliVariadicArg[list[Path]] = Field(
        default=[], description="collections of background questions that it was fitted with"
    )
    folds: int = Field(default=5, ge=2, description="of the background")
    leave_kinds_out: bool = Field(
        default=False, description="whole kinds at a time, whose own middle then is not there"
    )

    def run(self) -> None:
        require_artifact(self.artifact)
        require_collections(self.collected)
        require_collections(self.contrast, "contrast")
        from calibration.bench.explain.kinds import inside, outside
        from detector import artifact as artifacts

        artifact = artifacts.load(self.artifact)
        for line in inside(artifact):
            print(line)
        if self.contrast:
            for line in outside(
                artifact, self.collected, self.contrast, self.folds, by_kind=self.leave_kinds_out
            ):
                print(line)
