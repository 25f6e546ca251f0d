"""The command line of the instrument: kinds."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import Field
from pydantic_settings import CliSubCommand

from calibration.bench.explain.commands import Kinds
from calibration.command_line import CommandLine, run


class Explain(CommandLine):
    """Measure what explanations of flags are worth."""

    kinds: CliSubCommand[Kinds] = Field(description="how often the nearest is of the same kind")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 when its input was at fault."""
    return run(Explain, arguments, "python -m calibration.bench.explain")


if __name__ == "__main__":
    sys.exit(main())
