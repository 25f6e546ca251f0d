"""The commands of the paper's benchmark."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.bench.paper.ladder import write_ladder
from calibration.bench.paper.sample import sample, write_sample
from calibration.command_line import Alpha, Command, ModelCommand, ModelName, set_threads
from calibration.commands.collect import Template
from calibration.questions import in_first, read_rows, require_answers
from detector.atomic import write_atomically
from detector.engine.model.default_model import NAME
from detector.errors import CalibrationError


class Ladder(Command):
    """Write question sets that are alike in surface and differ in procedure."""

    n: int = Field(default=300, ge=1, description="questions a set")
    seed: int = Field(default=0, description="the same seed makes the same sets")
    programs: bool = Field(
        default=True, description="families of programs too, which are run in a sandbox"
    )
    out: Path = Field(description="folder; one questions file a set")

    def run(self) -> None:
        paths = write_ladder(self.out, self.n, self.seed, programs=self.programs)
        print(f"wrote {len(paths)} sets of {self.n} questions to {self.out}")


class Sample(Command):
    """Write a few held-out questions of each file into one."""

    questions: CliPositionalArg[list[Path]] = Field(description="questions files")
    n: int = Field(default=4, ge=1, description="questions of each")
    longest: int = Field(default=400, ge=1, description="characters of a question")
    out: Path = Field(description="questions file to write")

    def run(self) -> None:
        chosen = sample(self.questions, self.n, self.longest)
        write_sample(self.out, chosen)
        print(f"wrote {len(chosen)} questions to {self.out}")


class Shipped(Command):
    """Tell near and far shift from one ID file by a guard that was fitted to more."""

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    collected: CliPositionalArg[list[Path]] = Field(description="collections that it was fitted to")
    id: str = Field(default="MultiArith", description="which of their files is in distribution")
    near: CliVariadicArg[list[str]] = Field(default=[], description="which are near shift")
    far: CliVariadicArg[list[Path]] = Field(default=[], description="collections of far shift")

    def run(self) -> None:
        from calibration.bench.paper.shipped import shifts
        from detector import artifact as artifacts

        artifact = artifacts.load(self.artifact)
        for shift in shifts(artifact, self.collected, self.id, self.near, self.far):
            print(shift)


class Baselines(ModelCommand):
    """Add the likelihood and Monte-Carlo dropout baselines to collections; resumes."""

    collected: CliPositionalArg[list[Path]] = Field(description="collections, with responses")
    passes: int = Field(default=5, ge=2, description="with dropout")

    def run(self) -> None:
        from calibration.bench.paper.baselines import measure
        from detector.engine.model.checkpoint import load_checkpoint

        set_threads()
        checkpoint = load_checkpoint(self.model, self.dtype)
        for folder in self.collected:
            measure(checkpoint, folder, self.passes)


class Benchmark(Command):
    """Measure every score by the paper's protocol and beyond; table, JSON and page."""

    id: CliPositionalArg[list[Path]] = Field(description="questions file that is ID")
    in_turn: bool = Field(
        default=False,
        description="several ID files, each in turn ID and the others near OOD: the paper's "
        "MMLU table",
    )
    near: CliVariadicArg[list[Path]] = Field(default=[], description="OOD questions files, near")
    far: CliVariadicArg[list[Path]] = Field(default=[], description="OOD questions files, far")
    collected: Path = Field(description="`collect`'s --out")
    out: Path = Field(description="folder to write to")
    first: int = Field(default=60, ge=1, le=99, description="of every 100 rows fit")
    alpha: Alpha = Field(default=0.05, description="target false-alarm rate")

    def run(self) -> None:
        n_sets = len(self.near) + len(self.far)
        if self.in_turn and (len(self.id) < 2 or n_sets):
            raise CalibrationError(
                "--in-turn takes two or more ID files and no others: leave --near and --far out",
                param="in-turn",
            )
        if not self.in_turn and (len(self.id) > 1 or not n_sets):
            raise CalibrationError(
                "one ID file and some OOD files are needed: give these after --near or --far",
                param="near",
            )
        from calibration.bench.paper.benchmark import benchmark
        from calibration.bench.paper.page import html_page, terminal_table

        set_threads()
        for path in self.id:
            others = [other for other in self.id if other != path]
            result = benchmark(
                path,
                others or self.near,
                self.far,
                self.collected,
                first=self.first,
                alpha=self.alpha,
                progress=lambda name: print(f"scoring: {name}", file=sys.stderr),
            )
            out = self.out / path.stem if self.in_turn else self.out
            document = json.dumps(asdict(result), indent=1, allow_nan=False)
            write_atomically(out / "benchmark.json", document.encode())
            write_atomically(out / "benchmark.html", html_page(result).encode())
            print(f"ID = {path.stem}\n{terminal_table(result)}\n")
            print(f"wrote {out / 'benchmark.json'} and benchmark.html\n")


class Finetune(Command):
    """Train the model on questions and answers, as the paper does first."""

    questions: CliPositionalArg[Path] = Field(description="questions file with answers")
    out: Path = Field(description="folder of the checkpoint")
    model: ModelName = NAME
    first: int = Field(default=60, ge=1, le=100, description="of every 100 rows to train on")
    template: Template = Field(
        default="Q: {question}\nA:", description=r"as `collect`'s; \n is a line break"
    )
    epochs: int = Field(default=6, ge=1, description="at most")
    learning_rate: float = Field(default=3e-5, gt=0, description="at its highest")
    batch_size: int = Field(default=8, ge=1, description="rows a step")
    lora: int = Field(default=0, ge=0, description="rank of adapters to train alone; 0: none")
    patch_size: int = Field(default=1, ge=1, description="tokens a patch; over 1, patches first")

    def run(self) -> None:
        rows, _ = read_rows(self.questions)
        require_answers(rows, self.questions, "fine-tuning")
        from calibration.bench.paper.finetune import FinetuneOptions, finetune
        from detector.engine.model.checkpoint import load_checkpoint

        set_threads()
        finetuned = finetune(
            load_checkpoint(self.model, "float32"),
            [(row.text, row.answer) for n, row in enumerate(rows) if in_first(n, self.first)],
            self.out,
            FinetuneOptions(
                template=self.template,
                n_epochs=self.epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                lora_rank=self.lora,
                patch_size=self.patch_size,
            ),
        )
        print(
            f"{finetuned}\nwrote {self.out}; "
            f"collect with --model {self.out} --template {self.template!r}"
        )
