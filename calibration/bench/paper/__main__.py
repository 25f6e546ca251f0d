"""The benchmark's command line: sets, the paper's benchmark, families of programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import Field
from pydantic_settings import CliSubCommand

from calibration.bench.paper.commands import (
    Baselines,
    Benchmark,
    Finetune,
    Ladder,
    Sample,
    Shipped,
)
from calibration.bench.paper.programs.commands import Programs, Solve
from calibration.command_line import CommandLine, run


class Paper(CommandLine):
    """Measure scores as the paper does, and beyond."""

    ladder: CliSubCommand[Ladder] = Field(description="sets alike in surface, not in procedure")
    programs: CliSubCommand[Programs] = Field(description="OOD and quality on families of programs")
    solve: CliSubCommand[Solve] = Field(description="functions by the model, run in a sandbox")
    sample: CliSubCommand[Sample] = Field(description="a few held-out questions of each file")
    shipped: CliSubCommand[Shipped] = Field(description="both shifts by a guard as it ships")
    baselines: CliSubCommand[Baselines] = Field(description="add likelihoods and dropout")
    benchmark: CliSubCommand[Benchmark] = Field(description="every score; table, JSON and page")
    finetune: CliSubCommand[Finetune] = Field(description="train on questions and answers first")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 when its input was at fault."""
    return run(Paper, arguments, "python -m calibration.bench.paper")


if __name__ == "__main__":
    sys.exit(main())
