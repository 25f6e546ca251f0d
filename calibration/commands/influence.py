"""`influence`: which questions with answers the model's answers stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import (
    QUESTIONS,
    BadOptionError,
    Column,
    Command,
    Dtype,
    ModelName,
    set_threads,
)
from calibration.paths import (
    require_artifact,
    require_collections,
    require_file,
    require_folder,
    require_model,
)
from calibration.questions import read_questions
from calibration.reading import require_questions
from detector.atomic import write_atomically
from detector.engine.model.default_model import NAME
from detector.errors import CalibrationError


class Influence(Command):
    """Influence of questions with answers on what the model answers, by EK-FAC; resumes."""

    documents: CliPositionalArg[list[Path]] = Field(description=f"{QUESTIONS}; with answers")
    artifact: Path = Field(description="artifact whose scores the influence is set beside")
    procedures: CliVariadicArg[list[Path]] = Field(
        default=[],
        description="collections, with responses, of sets such as slope-small and slope-large: "
        "names alike up to the last hyphen are one procedure with other numbers",
    )
    queries: CliVariadicArg[list[Path]] = Field(
        default=[], description="collections of other questions, with responses"
    )
    out: Path = Field(description="folder; influence by block, and influence.json")
    picture: Path | None = Field(
        default=None, description="file to draw the correlations between queries to, .png or .svg"
    )
    model: ModelName = NAME
    dtype: Dtype = Field(default="float32", description="of the weights and all arithmetic")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="that the model is to run on; auto takes the best there is"
    )
    damping: float = Field(default=0.1, gt=0, description="times each layer's mean eigenvalue")
    draws: int = Field(default=1, ge=1, description="of tokens by the model, for the eigenvalues")
    seed: int = Field(default=0, ge=0, description="of these")
    at_once: int = Field(
        default=2, ge=1, description="blocks of the model; more take memory and save runs of it"
    )
    tokens: int = Field(default=1024, ge=1, description="that run in one batch")
    column: Column = None

    def run(self) -> None:
        require_questions(self.documents)
        require_artifact(self.artifact)
        if not self.procedures and not self.queries:
            raise CalibrationError(
                "influence is on answers, and there are none: name collections after --procedures "
                "or --queries",
                param="queries",
            )
        require_collections(self.procedures, "procedures")
        require_collections(self.queries, "queries")
        require_model(self.model)
        require_folder(self.out)
        if self.picture is not None:
            require_file(self.picture, "picture")
            if self.picture.suffix not in (".png", ".svg"):
                raise BadOptionError(
                    f"--picture is {str(self.picture)!r}: end its name in .png or .svg",
                    param="picture",
                )
        files = []
        for path in self.documents:
            questions, source = read_questions(path, self.column)
            files.append((source.name, questions))
        import torch

        from calibration.collection import read_collections
        from calibration.influence.audit import audit
        from calibration.influence.pairs import Options
        from detector import artifact as artifacts
        from detector.engine.model.checkpoint import load_checkpoint

        set_threads()
        artifact = artifacts.load(self.artifact)
        collections = read_collections([*self.procedures, *self.queries])
        n = len(self.procedures)
        device = None if self.device == "auto" else torch.device(self.device)
        found = audit(
            load_checkpoint(self.model, self.dtype, device),
            artifact,
            files,
            collections[:n],
            collections[n:],
            self.out,
            Options(
                damping=self.damping,
                draws=self.draws,
                seed=self.seed,
                at_once=self.at_once,
                tokens=self.tokens,
            ),
        )
        write_atomically(self.out / "influence.json", found.as_json().encode())
        if self.picture is not None:
            from calibration.influence.picture import picture

            content = picture(found, self.picture.suffix.removeprefix("."))
            write_atomically(self.picture, content)
        print(found)
