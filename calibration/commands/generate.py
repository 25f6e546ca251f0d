"""`generate`: a questions file of made-up problems."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliVariadicArg

from calibration.command_line import Command
from calibration.kinds import KINDS, WORD_PROBLEMS, write_kinds

_ALL = "all"


class Generate(Command):
    """Write a questions file of made-up grade-school problems."""

    n: int = Field(default=1500, ge=1, description="how many, of all kinds together")
    seed: int = Field(default=0, description="the same seed makes the same problems")
    kinds: CliVariadicArg[list[str]] = Field(
        default=[WORD_PROBLEMS],
        min_length=1,
        description="kinds of problems, in equal shares, or `all`",
    )
    out: Path = Field(description="questions file to write")

    def run(self) -> None:
        kinds = list(KINDS) if self.kinds == [_ALL] else self.kinds
        write_kinds(self.out, kinds, self.n, self.seed)
        print(f"wrote {self.n} questions to {self.out}")
