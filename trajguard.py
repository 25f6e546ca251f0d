"""The `trajguard` command: serve and check, and every command of calibration."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import Field
from pydantic_settings import CliSubCommand

from calibration.__main__ import Calibration
from calibration.command_line import Command, run


class Serve(Command):
    """Serve a model behind its guard; any setting of the service is a flag."""

    def run(self) -> None:
        raise AssertionError("main passes `serve` on before options are read")


class Check(Command):
    """Check settings, artifact and model without serving; takes the flags of `serve`."""

    def run(self) -> None:
        raise AssertionError("main passes `check` on before options are read")


class TrajGuard(Calibration):
    """An online out-of-distribution guard for math questions to language models."""

    serve: CliSubCommand[Serve] = Field(description="serve a model behind its guard")
    check: CliSubCommand[Check] = Field(
        description="check settings, artifact and model without serving"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 when its input was at fault, 1 when `check` finds
    artifact or model to be.
    """
    asked = sys.argv[1:] if arguments is None else list(arguments)
    if asked[:1] == ["serve"]:
        from app.__main__ import main as serve

        return serve(asked[1:])
    if asked[:1] == ["check"]:
        from app.check import main as check

        return check(asked[1:])
    return run(TrajGuard, asked, "trajguard")


if __name__ == "__main__":
    sys.exit(main())
