"""`ask`: questions to a running service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from calibration.command_line import QUESTIONS, Column, Command
from calibration.questions import Split
from calibration.reading import require_questions


class Ask(Command):
    """Count what a running service refuses or flags."""

    url: CliPositionalArg[str] = Field(description="such as http://127.0.0.1:8000")
    questions: CliPositionalArg[list[Path]] = Field(description=QUESTIONS)
    column: Column = None
    split: Split | None = Field(default=None, description="only questions of this split")
    known_templates: bool = Field(
        default=False, description="split questions as `fit --known-templates` does"
    )
    n: int | None = Field(default=None, ge=1, description="how many, drawn; else all")
    max_tokens: int = Field(default=8, ge=1, description="of each response")
    stream: bool = Field(default=False, description="ask for responses as they are drawn")

    def run(self) -> None:
        require_questions(self.questions)
        from calibration.ask import ask, choose, describe

        questions = choose(
            self.questions,
            self.column,
            self.split,
            self.n,
            known_templates=self.known_templates,
        )
        print(describe(ask(self.url, questions, self.max_tokens, stream=self.stream)))
