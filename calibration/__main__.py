"""The calibration command line: generate, vary, collect, fit, report, canaries, neighbours,
revalidate, influence, second-opinion, recheck and ask.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import Field
from pydantic_settings import CliSubCommand

from calibration.command_line import CommandLine, run
from calibration.commands.ask import Ask
from calibration.commands.canaries import Canaries
from calibration.commands.collect import Collect
from calibration.commands.fit import Fit
from calibration.commands.generate import Generate
from calibration.commands.influence import Influence
from calibration.commands.neighbours import Neighbours
from calibration.commands.recheck import Recheck
from calibration.commands.report import Report
from calibration.commands.revalidate import Revalidate
from calibration.commands.second_opinion import SecondOpinion
from calibration.commands.vary import Vary


class Calibration(CommandLine):
    """Calibrate TrajGuard for your own questions, model or alpha."""

    generate: CliSubCommand[Generate] = Field(description="make up grade-school word problems")
    vary: CliSubCommand[Vary] = Field(description="write questions in the ways people type them")
    collect: CliSubCommand[Collect] = Field(description="run the model over questions files")
    fit: CliSubCommand[Fit] = Field(description="fit collections into an artifact")
    report: CliSubCommand[Report] = Field(description="false alarms on holdout, recall on OOD")
    canaries: CliSubCommand[Canaries] = Field(
        description="put questions into an artifact by which a service sees its guard change"
    )
    neighbours: CliSubCommand[Neighbours] = Field(
        description="put questions into an artifact by which a service explains its flags"
    )
    revalidate: CliSubCommand[Revalidate] = Field(
        description="see whether an artifact holds on another engine, device or dtype"
    )
    influence: CliSubCommand[Influence] = Field(
        description="see which questions with answers the model's answers stand on"
    )
    second_opinion: CliSubCommand[SecondOpinion] = Field(
        description="calibrate what a service asks about a question that it has flagged"
    )
    recheck: CliSubCommand[Recheck] = Field(
        description="see whether the model's answers are better for its own check"
    )
    ask: CliSubCommand[Ask] = Field(description="count what a running service refuses")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 when its input was at fault."""
    return run(Calibration, arguments, "python -m calibration")


if __name__ == "__main__":
    sys.exit(main())
