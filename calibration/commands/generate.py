"""`generate`: a questions file of made-up word problems."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from calibration.command_line import Command
from calibration.generate import write_questions


class Generate(Command):
    """Write a questions file of made-up grade-school word problems."""

    n: int = Field(default=1500, ge=1, description="how many")
    seed: int = Field(default=0, description="the same seed makes the same problems")
    out: Path = Field(description="questions file to write")

    def run(self) -> None:
        write_questions(self.out, self.n, self.seed)
        print(f"wrote {self.n} questions to {self.out}")
