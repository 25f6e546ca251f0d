"""The command line of the instrument: measure, patches."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import Field
from pydantic_settings import CliSubCommand

from calibration.bench.streaming.commands import Measure, Patches
from calibration.command_line import CommandLine, run


class Streaming(CommandLine):
    """Measure when guards that look at responses flag."""

    measure: CliSubCommand[Measure] = Field(
        description="power and delay at fixed false-alarm rates; a table and a picture"
    )
    patches: CliSubCommand[Patches] = Field(
        description="patches beside the running mean; a table and a picture"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 when its input was at fault."""
    return run(Streaming, arguments, "python -m calibration.bench.streaming")


if __name__ == "__main__":
    sys.exit(main())
