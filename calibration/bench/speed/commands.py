"""The commands that measure what scoring and the engine cost."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Command, Dtype, ModelCommand, ModelName, set_threads
from detector import artifact as artifacts
from detector.atomic import write_atomically
from detector.engine.model.default_model import NAME
from detector.errors import CalibrationError


class Throughput(Command):
    """Measure tokens a second, guarded and not, beside other engines."""

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    model: ModelName = NAME
    at_once: CliVariadicArg[list[PositiveInt]] = Field(
        default=[1, 8, 32], min_length=1, description="requests"
    )
    dtype: CliVariadicArg[list[Dtype]] = Field(
        default=["bfloat16", "float32"], min_length=1, description="of the weights"
    )
    rounds: int = Field(default=7, ge=1, description="each contender once a round")
    ours: bool = Field(default=False, description="the engine alone, guarded and not")
    vllm: Path | None = Field(default=None, description="an interpreter that has vLLM installed")
    out: Path = Field(description="JSON file to write")

    def run(self) -> None:
        if self.ours and self.vllm is not None:
            raise CalibrationError(
                f"--ours leaves out other engines, --vllm {str(self.vllm)!r} asks for one: give "
                "only one of the two",
                param="ours",
            )
        artifact = artifacts.load(self.artifact)
        from calibration.bench.speed.throughput import document, throughput
        from detector.engine.model.default_model import default_checkpoint

        set_threads()
        folder = default_checkpoint() if self.model == NAME else Path(self.model)
        comparisons = []
        for comparison in throughput(
            artifact,
            self.model,
            sizes=self.at_once,
            dtypes=self.dtype,
            rounds=self.rounds,
            ours_alone=self.ours,
            vllm_python=self.vllm,
            vllm_model=folder,
        ):
            print(comparison, flush=True)
            comparisons.append(comparison)
            write_atomically(self.out, document(comparisons))
        print(f"wrote {self.out}")


class FirstTokens(Command):
    """Time the first token, guarded and not, by how the question is typed."""

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    model: ModelName = NAME
    dtype: Dtype | None = Field(default=None, description="of the weights; the artifact's")
    rounds: int = Field(default=8, ge=1, description="each way to type once a round")
    n: int = Field(default=8, ge=1, description="questions")

    def run(self) -> None:
        artifact = artifacts.load(self.artifact)
        from calibration.bench.speed.first_token import first_token

        set_threads()
        for found in first_token(artifact, self.model, self.dtype, rounds=self.rounds, n=self.n):
            print(found)


class Load(ModelCommand):
    """Put the engine under Poisson arrivals, refusals and many requests."""

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    n: int = Field(default=300, ge=20, description="arrivals")
    n_memory: int = Field(default=2000, ge=10, description="requests for memory")

    def run(self) -> None:
        artifact = artifacts.load(self.artifact)
        from calibration.bench.speed.load import load

        set_threads()
        print(load(artifact, self.model, self.dtype, n=self.n, n_memory=self.n_memory))


class Choices(ModelCommand):
    """Time several responses to one prompt, with the prompt's prefill shared and without."""

    n: int = Field(default=8, ge=2, description="responses")
    n_prompt: int = Field(default=300, ge=1, description="tokens of the prompt")
    n_tokens: CliVariadicArg[list[PositiveInt]] = Field(
        default=[16, 64], min_length=1, description="of each response"
    )
    rounds: int = Field(default=7, ge=1, description="each way once a round")

    def run(self) -> None:
        from calibration.bench.speed.choices import choices

        set_threads()
        for found in choices(
            self.model,
            self.dtype,
            n=self.n,
            n_prompt=self.n_prompt,
            lengths=self.n_tokens,
            rounds=self.rounds,
        ):
            print(found, flush=True)


class Growth(ModelCommand):
    """Plot a step's time by batch, prompt length and layers."""

    out: Path = Field(description="SVG file to write")

    def run(self) -> None:
        from calibration.bench.speed.growth import growth, picture

        set_threads()
        curves = growth(self.model, self.dtype)
        write_atomically(self.out, picture(curves))
        print(*curves, f"wrote {self.out}", sep="\n")


class Floor(Command):
    """Measure decode steps of a random model beside what reading memory takes."""

    shape: CliPositionalArg[Literal["135m", "7b"]] = Field(description="of a Llama: 135m or 7b")
    batches: CliVariadicArg[list[PositiveInt]] = Field(
        default=[1, 8, 32, 128], min_length=1, description="requests"
    )
    dtype: Literal["auto", Dtype] = Field(default="auto", description="of the weights")

    def run(self) -> None:
        from calibration.bench.speed.floor import floor

        set_threads()
        for point in floor(self.shape, self.batches, self.dtype):
            print(point, flush=True)


class Structured(ModelCommand):
    """Measure structured output: what masks cost, and libraries for it beside each other."""

    at_once: CliVariadicArg[list[PositiveInt]] = Field(
        default=[1, 8], min_length=1, description="requests"
    )
    rounds: int = Field(default=7, ge=1, description="each contender once a round")
    of_processor: bool = Field(
        default=False,
        description="seconds of the processor: on a CPU that others use too, they vary less",
    )
    libraries: bool = Field(
        default=False, description="the libraries, those that are installed (minutes)"
    )

    def run(self) -> None:
        from calibration.bench.speed.structured import libraries, lines, masks

        set_threads()
        if self.libraries:
            for measured in libraries(self.model):
                print(measured, flush=True)
            return
        for comparison in masks(
            self.model, self.dtype, self.at_once, self.rounds, of_processor=self.of_processor
        ):
            print(lines(comparison), flush=True)


class Timing(Command):
    """Time the scoring of a trajectory on one thread."""

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    fit: bool = Field(
        default=False, description="also fit 5,000 trajectories of 33 x 4096 (minutes)"
    )

    def run(self) -> None:
        from calibration.bench.speed.timing import fit_cost, timings

        artifact = artifacts.load(self.artifact)
        if self.fit:
            print(fit_cost())
        for timing in timings(artifact):
            print(timing)
