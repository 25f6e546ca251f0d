"""`recheck`: whether a model's answers are better for its own check, and may go out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import QUESTIONS, Column, Command, Dtype, ModelName, set_threads
from calibration.commands.collect import unescape
from calibration.paths import require_artifact, require_file, require_folder, require_model
from calibration.reading import require_questions
from detector.backend import Sampling
from detector.engine.model.default_model import NAME
from detector.errors import CalibrationError
from detector.recheck_record import AGAIN, CHECK, Rechecking

Text = Annotated[str, AfterValidator(unescape)]


class Recheck(Command):
    """Have questions answered, criticised and answered again, and write an artifact that says
    whether the second answers may go out; resumes where --keep is given.
    """

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    questions: CliPositionalArg[list[Path]] = Field(
        description=f"{QUESTIONS}: in scope, each with a number as its answer"
    )
    ood: CliVariadicArg[list[Path]] = Field(
        default=[], description="such files out of scope, to see how many flags would be lifted"
    )
    out: Path = Field(description="artifact to write; may be the same")
    model: ModelName = NAME
    dtype: Literal["auto", Dtype] = Field(
        default="auto", description="of the weights; auto takes the artifact's"
    )
    n: int = Field(default=200, ge=1, description="questions to run, those flagged first")
    n_ood: int = Field(default=100, ge=1, description="flagged questions out of scope to run")
    check: Text = Field(default=CHECK, description="asked of an answer, with {p_value} in it")
    again: Text = Field(default=AGAIN, description="asked after the critique, with {question}")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="of an answer; as calibrated where the artifact judges responses, else 256",
    )
    check_tokens: int = Field(default=64, ge=1, description="of a critique")
    at_once: int = Field(default=16, ge=1, description="rounds under way together")
    keep: Path | None = Field(
        default=None, description="folder of what was asked and answered, by which a run resumes"
    )
    column: Column = None

    def run(self) -> None:
        require_artifact(self.artifact)
        require_questions([*self.questions, *self.ood])
        require_model(self.model)
        require_file(self.out)
        if self.keep is not None:
            require_folder(self.keep, "keep")
        for name, text, mark in (
            ("check", self.check, "{p_value}"),
            ("again", self.again, "{question}"),
        ):
            if mark not in text:
                raise CalibrationError(
                    f"--{name} has no {mark} in it: write where it goes", param=name
                )
        set_threads()
        from calibration.recheck import Options, recheck
        from detector import artifact as artifacts
        from detector.trajectory import PROMPT_LOOKS, parse_look

        artifact = artifacts.load(self.artifact)
        manifest = artifact.manifest
        sees_responses = {parse_look(look.look) for look in manifest.looks} - PROMPT_LOOKS
        calibrated = manifest.context.max_tokens if sees_responses else 256
        options = Options(
            questions=self.questions,
            out=self.out,
            model=self.model,
            ood=self.ood,
            asking=Rechecking(
                check=self.check,
                again=self.again,
                max_tokens=self.max_tokens or calibrated,
                check_tokens=self.check_tokens,
                sampling=manifest.context.sampling if sees_responses else Sampling(),
            ),
            dtype=self.dtype,
            n=self.n,
            n_ood=self.n_ood,
            at_once=self.at_once,
            keep=self.keep,
            column=self.column,
        )
        recheck(artifact, options, print)
