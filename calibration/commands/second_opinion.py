"""`second-opinion`: calibrates what a service asks about a question that it has flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import (
    QUESTIONS,
    Alpha,
    Column,
    Command,
    Dtype,
    ModelName,
    set_threads,
)
from calibration.paths import require_artifact, require_file, require_model
from calibration.questions import read_questions
from calibration.reading import require_questions
from detector.engine.model.default_model import NAME
from detector.opinion_record import Asking, Example

_QUESTION = (
    "Mira has 24 stickers. She gives 9 of them to Jonas and buys 5 more. How many stickers does "
    "she have now?"
)


class SecondOpinion(Command):
    """Write a copy of an artifact with the scores that second opinions are judged by: of answers
    to flagged questions in scope. Half of the questions are held out, and show what is gained.
    """

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    questions: CliPositionalArg[list[Path]] = Field(
        description=f"{QUESTIONS}: in scope, that it was not fitted to"
    )
    out: Path = Field(description="artifact to write; may be the same")
    ood: CliVariadicArg[list[Path]] = Field(
        default=[], description="OOD questions files, to see what second opinions lose"
    )
    model: ModelName = NAME
    dtype: Literal["auto", Dtype] = Field(
        default="auto", description="of the weights; auto takes the artifact's"
    )
    alpha: Alpha | None = Field(
        default=None, description="at which stage one flags, instead of the artifact's"
    )
    of: Literal["flagged", "all"] = Field(
        default="flagged",
        description="questions to calibrate by; all stand in where too few are flagged",
    )
    n_answers: int = Field(default=8, ge=2, description="to each question, and with the example")
    temperature: float = Field(default=0.5, gt=0, le=2, description="that answers are drawn at")
    max_tokens: int = Field(default=16, ge=1, description="of each answer")
    instruction: str = Field(
        default=Asking.model_fields["instruction"].default, description="behind each question"
    )
    example_question: str = Field(default=_QUESTION, description="of the worked example")
    example_answer: str = Field(default="20", description="its answer")
    nli: str | None = Field(
        default=None,
        description="model that tells which answers without a number come to the same",
    )
    most: int | None = Field(
        default=None, ge=1, description="questions to calibrate by, and OOD ones, at most"
    )
    keep: Path | None = Field(
        default=None, description="file of what was answered, by which a run resumes"
    )
    column: Column = None

    def run(self) -> None:
        require_artifact(self.artifact)
        require_questions(self.questions)
        require_questions(self.ood)
        require_model(self.model)
        require_file(self.out)
        if self.keep is not None:
            require_file(self.keep, "keep")
        set_threads()
        read = [read_questions(path, self.column) for path in self.questions]
        ood = [read_questions(path, self.column)[0] for path in self.ood]
        from calibration.reporting.second_opinion import joint_rates, tables
        from calibration.second_opinion import Asker, find, record
        from detector import artifact as artifacts
        from detector.engine.model.checkpoint import load_checkpoint
        from detector.engine.model.numerics import record_of

        artifact = artifacts.load(self.artifact)
        manifest = artifact.manifest
        dtype = manifest.fingerprint.dtype if self.dtype == "auto" else self.dtype
        checkpoint = load_checkpoint(self.model, dtype)
        engine = record_of(checkpoint.model.device)
        manifest.require(checkpoint.fingerprint, checkpoint.name, engine)
        entails, nli = None, ""
        if self.nli is not None:
            from detector.engine.model.nli import load_nli

            entails = load_nli(self.nli)
            nli = entails.identity
        asking = Asking(
            n_answers=self.n_answers,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            instruction=self.instruction,
            example=Example(question=self.example_question, answer=self.example_answer),
            nli=nli,
        )
        alpha = self.alpha or artifact.detector.alpha
        everything = self.of == "all"
        with Asker(checkpoint, artifact, asking, alpha, entails, self.keep) as asker:
            found = find(
                asker,
                [each for questions, _ in read for each in questions],
                [each for questions in ood for each in questions],
                everything=everything,
                most=self.most,
            )
        sources = {source.name: source.sha256 for _, source in read}
        made = record(checkpoint, found, asking, alpha, sources, everything=everything)
        written = artifacts.Artifact.of(
            artifact.detector, manifest.model_copy(update={"second_opinion": made})
        )
        written.save(self.out)
        print(tables(made, found) if self.ood else joint_rates(made))
        print(f"artifact {artifact.id} with second opinions is {written.id}: {self.out}")
