"""The command line of what the engine costs, from scoring to the first token and floors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import Field
from pydantic_settings import CliSubCommand

from calibration.bench.speed.commands import (
    Choices,
    FirstTokens,
    Floor,
    Growth,
    Load,
    Structured,
    Throughput,
    Timing,
)
from calibration.command_line import CommandLine, run


class Speed(CommandLine):
    """Measure what scoring and the engine cost."""

    throughput: CliSubCommand[Throughput] = Field(description="tokens a second, guarded and not")
    first_token: CliSubCommand[FirstTokens] = Field(
        description="time to the first token, guarded and not"
    )
    load: CliSubCommand[Load] = Field(description="arrivals, refusals and many requests")
    choices: CliSubCommand[Choices] = Field(
        description="several responses to one prompt, its prefill shared and not"
    )
    growth: CliSubCommand[Growth] = Field(description="plot a step's time by what it grows with")
    floor: CliSubCommand[Floor] = Field(description="steps beside what reading memory takes")
    structured: CliSubCommand[Structured] = Field(
        description="structured output: what masks cost, and libraries beside each other"
    )
    timing: CliSubCommand[Timing] = Field(description="what scoring costs on one thread")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 when its input was at fault."""
    return run(Speed, arguments, "python -m calibration.bench.speed")


if __name__ == "__main__":
    sys.exit(main())
