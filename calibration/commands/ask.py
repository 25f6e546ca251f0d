"""`ask`: questions to a running service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from calibration.command_line import Command
from calibration.questions import Split


class Ask(Command):
    """Count what a running service refuses or flags."""

    url: CliPositionalArg[str] = Field(description="such as http://127.0.0.1:8000")
    questions: CliPositionalArg[list[Path]] = Field(description="questions files, JSON Lines")
    split: Split | None = Field(default=None, description="only questions of this split")
    n: int = Field(default=300, ge=1, description="how many")
    max_tokens: int = Field(default=8, ge=1, description="of each response")

    def run(self) -> None:
        from calibration.ask import ask, choose, describe

        questions = choose(self.questions, self.split, self.n)
        print(describe(ask(self.url, questions, self.max_tokens)))
