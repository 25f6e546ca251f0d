"""`vary`: the ways in which people type questions, as questions files."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from pydantic_settings import CliPositionalArg

from calibration.command_line import QUESTIONS, Column, Command
from calibration.paths import require_folder
from calibration.questions import Split, read_questions
from calibration.reading import require_questions
from calibration.variations import read_variations

T = TypeVar("T")

log = logging.getLogger(__name__)


class Vary(Command):
    """Write questions files of the ways in which people type questions."""

    questions: CliPositionalArg[list[Path]] = Field(
        description="of what is in scope, all that `fit` will get: " + QUESTIONS
    )
    column: Column = None
    out: Path = Field(description="folder to write the files into")
    forms: int = Field(default=1, ge=0, description="rewritten forms of each question")
    dialogues: int | None = Field(
        default=None, ge=0, description="conversations; a tenth of the questions"
    )
    pairs: int | None = Field(
        default=None, ge=0, description="several questions at once; a twentieth of the questions"
    )
    background: Path | None = Field(
        default=None, description="questions file of what people ask besides, never in scope"
    )
    variations: Path | None = Field(
        default=None, description="TOML file of variations to add to the built-in ones"
    )
    held_out: bool = Field(
        default=False, description="variations and phrases never calibrated on, for `report`"
    )
    split: Split | None = Field(default=None, description="questions of this split alone")
    known_templates: bool = Field(
        default=False, description="split questions as `fit --known-templates` does"
    )
    seed: int = Field(default=0, description="the same seed writes the same files")

    def run(self) -> None:
        require_questions([*self.questions, *([self.background] if self.background else [])])
        require_folder(self.out)
        variations = read_variations(self.variations)
        read = [
            (questions, source.name)
            for questions, source in (read_questions(path, self.column) for path in self.questions)
        ]
        background = read_questions(self.background, self.column)[0] if self.background else []
        # What finds templates takes a second to import; bad input is told before that.
        from calibration.background import background_of
        from calibration.vary import (
            Ways,
            bases,
            dialogues_of,
            pairs_of,
            variations_of,
            write_rows,
        )

        if not self.known_templates:
            log.info("finding templates, which never straddle two splits")
        everything = bases(read, known_templates=self.known_templates)
        found = [base for base in everything if self.split in (None, base.split)]
        chosen = tuple(v for v in variations.values() if v.held_out == self.held_out)
        ways = Ways(chosen, self.held_out, self.seed)
        n = len(found)
        n_dialogues = -(-n // 10) if self.dialogues is None else self.dialogues
        n_pairs = -(-n // 20) if self.pairs is None else self.pairs
        files: dict[str, Iterator[dict[str, Any]]] = {
            "variations": variations_of(_shown(found, "variations"), ways, self.forms),
            "dialogues": dialogues_of(found, ways, n_dialogues),
            "pairs": pairs_of(found, ways, n_pairs),
        }
        if self.background:
            shown = _shown(background, "background")
            files["background"] = background_of(shown, self.background.stem, everything, ways)
        for name, rows in files.items():
            path = self.out / f"{name}.jsonl"
            if written := write_rows(path, rows):
                print(f"wrote {written} questions to {path}")


def _shown(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a progress bar that begins when the first is asked for."""
    from tqdm import tqdm

    yield from tqdm(items, desc=what, unit="question", file=sys.stderr)
