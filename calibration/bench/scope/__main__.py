"""The command line of the instrument: measure, evade, tradeoff."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import Field
from pydantic_settings import CliSubCommand

from calibration.bench.scope.commands import Evade, Measure, Tradeoff
from calibration.command_line import CommandLine, run


class Scope(CommandLine):
    """Measure a guard on questions around its scope."""

    measure: CliSubCommand[Measure] = Field(description="every set; tables, JSON and a picture")
    evade: CliSubCommand[Evade] = Field(description="questions out of scope, disguised")
    tradeoff: CliSubCommand[Tradeoff] = Field(description="plot recall by what is refused in scope")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, `measure` if none is named; 0 when it succeeded, 2 when its input was at
    fault.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] not in (*Scope.model_fields, "-h", "--help"):
        given = ["measure", *given]
    return run(Scope, given, "python -m calibration.bench.scope")


if __name__ == "__main__":
    sys.exit(main())
