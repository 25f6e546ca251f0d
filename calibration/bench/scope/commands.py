"""The commands: measure a guard on the sets around its scope, and compare what guards trade off."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Alpha, Command, ModelName, set_threads
from calibration.paths import (
    require_artifact,
    require_collections,
    require_file,
    require_folder,
    require_model,
)
from calibration.reading import require_questions
from detector.atomic import write_atomically
from detector.engine.model.default_model import NAME
from detector.errors import CalibrationError

if TYPE_CHECKING:
    from calibration.bench.scope.result import Design
    from calibration.bench.scope.sets import ScopeSet


def packaged_artifact() -> Path:
    return Path(str(files("detector.artifacts") / "grade-school.safetensors"))


class Measure(Command):
    """What is refused of the sets around a scope: tables, JSON and a picture; resumes."""

    data: CliPositionalArg[Path] = Field(description="folder of A_*, P_*, B_*, C_*, D_*.jsonl")
    math: CliVariadicArg[list[Path]] = Field(default=[], description="MATH_*.jsonl, out of scope")
    artifact: Path = Field(default_factory=packaged_artifact, description="artifact, .safetensors")
    guard: bool = Field(
        default=True, description="the artifact; --no-guard measures the rival alone"
    )
    model: ModelName = NAME
    holdout: CliVariadicArg[list[Path]] = Field(
        default=[],
        description="collections that the artifact was fitted to: false alarms on holdout",
    )
    rival: bool = Field(default=False, description="nearest neighbours of sentence embeddings too")
    rival_fit: CliVariadicArg[list[Path]] = Field(
        default=[], description="in-scope questions files for the rival"
    )
    alpha: CliVariadicArg[list[Alpha]] = Field(
        default=[0.05, 0.01, 0.001], description="target false-alarm rates"
    )
    bars: Path | None = Field(default=None, description="TOML: what each figure should reach")
    n: int | None = Field(
        default=None, ge=1, description="first questions of each file; all if left"
    )
    out: Path = Field(default=Path("data/scope"), description="folder of all that is computed")
    docs: Path | None = Field(default=None, description="folder of tables and picture; else --out")

    def run(self) -> None:
        self._require()
        from calibration.bench.scope.made import made_sets
        from calibration.bench.scope.picture import picture
        from calibration.bench.scope.result import Measured, SetRecord
        from calibration.bench.scope.sets import read_sets
        from calibration.bench.scope.summary import read_bars
        from calibration.bench.scope.tables import markdown

        bars = read_bars(self.bars)
        set_threads()
        out = self.out if self.n is None else self.out / f"first-{self.n}"
        sets = read_sets(self.data, self.math, self.n)
        sets += made_sets(sets, self._held_out(), out / "made", self.n)
        designs = [self._guarded(sets, out)] if self.guard else []
        designs += self._rivals(sets) if self.rival else []
        measured = Measured(
            sets=tuple(
                SetRecord(
                    name=found.name,
                    family=found.family,
                    keys=tuple(question.key for question in found.questions),
                    kinds=found.kinds,
                )
                for found in sets
            ),
            designs=tuple(designs),
        )
        docs = self.docs or out
        write_atomically(out / "scope.json", measured.model_dump_json().encode())
        tables = markdown(measured, bars)
        write_atomically(docs / "scope-tables.md", tables.encode())
        write_atomically(docs / "scope.png", picture(measured, bars))
        print(tables.partition("## Refused")[0])
        print(f"wrote {out / 'scope.json'}, {docs / 'scope-tables.md'} and scope.png")

    def _require(self) -> None:
        require_questions([self.data, *self.math, *self.rival_fit])
        require_folder(self.out)
        require_collections(self.holdout, "holdout")
        if self.rival != bool(self.rival_fit):
            raise CalibrationError(
                "--rival is measured with the in-scope questions of --rival-fit: give both or "
                "neither",
                param="rival",
            )
        if self.guard:
            require_artifact(self.artifact)
            require_model(self.model)
        elif not self.rival:
            raise CalibrationError(
                "--no-guard leaves nothing to measure: give --rival and --rival-fit",
                param="guard",
            )

    def _held_out(self) -> list[str]:
        """In-scope questions that nothing measured here was calibrated on."""
        from calibration.bench.scope.guard import held_out_texts
        from calibration.bench.scope.rival import split_texts
        from detector import artifact as artifacts

        if self.guard:
            return held_out_texts(artifacts.load(self.artifact), self.holdout)
        return split_texts(self.rival_fit)["holdout"]

    def _guarded(self, sets: list[ScopeSet], out: Path) -> Design:
        from calibration.bench.scope.guard import collect_sets, judge_sets
        from detector import artifact as artifacts
        from detector.engine.model.checkpoint import load_checkpoint

        artifact = artifacts.load(self.artifact)
        checkpoint = load_checkpoint(self.model, artifact.manifest.fingerprint.dtype)
        collect_sets(artifact, checkpoint, sets, out / "collected")
        return judge_sets(artifact, sets, out / "collected", self.alpha, self.holdout)

    def _rivals(self, sets: list[ScopeSet]) -> list[Design]:
        from calibration.bench.scope.embedding import Embedder
        from calibration.bench.scope.rival import rivals

        # By content, so that other runs into the same --out share them.
        return rivals(Embedder(self.out / "embedded").embed, self.rival_fit, sets, self.alpha)


class Evade(Command):
    """What is refused of questions out of scope that are disguised by each attack; resumes."""

    math: CliPositionalArg[list[Path]] = Field(description="MATH_*.jsonl, out of scope")
    inside: CliVariadicArg[list[Path]] = Field(
        description="questions files in scope, which nothing was calibrated on"
    )
    artifact: Path = Field(default_factory=packaged_artifact, description="artifact, .safetensors")
    model: ModelName = NAME
    n: int = Field(default=100, ge=1, description="questions drawn")
    alpha: CliVariadicArg[list[Alpha]] = Field(
        default=[0.05, 0.01], description="target false-alarm rates, the one in full first"
    )
    out: Path = Field(default=Path("data/evasion"), description="folder of all that is computed")
    docs: Path | None = Field(default=None, description="folder of the table; else --out")

    def run(self) -> None:
        require_questions([*self.math, *self.inside])
        require_folder(self.out)
        require_artifact(self.artifact)
        require_model(self.model)
        from calibration.bench.scope.evasion import disguised_sets, drawn, table
        from calibration.bench.scope.guard import collect_sets, judge_sets
        from detector import artifact as artifacts
        from detector.engine.model.checkpoint import load_checkpoint

        set_threads()
        artifact = artifacts.load(self.artifact)
        sets = disguised_sets(drawn(self.math, self.n), self.inside, self.out / "made")
        checkpoint = load_checkpoint(self.model, artifact.manifest.fingerprint.dtype)
        put = list(sets.values())
        collect_sets(artifact, checkpoint, put, self.out / "collected")
        design = judge_sets(artifact, put, self.out / "collected", self.alpha, ())
        found = table(sets, design)
        path = (self.docs or self.out) / "evasion-table.md"
        write_atomically(path, found.encode())
        print(found)
        print(f"wrote {path}")


class Tradeoff(Command):
    """Plot what designs find of OOD questions by what they refuse in scope."""

    measured: CliPositionalArg[list[Path]] = Field(description="scope.json of `measure`, 1 to 3")
    design: CliVariadicArg[list[str]] = Field(
        default=[], description="names; all designs of the files if left"
    )
    out: Path = Field(description="picture, .png")

    def run(self) -> None:
        require_file(self.out)
        from calibration.bench.scope.result import read_measured
        from calibration.bench.scope.tradeoff import chosen, picture

        found = {path: read_measured(path) for path in self.measured}
        write_atomically(self.out, picture(chosen(found, self.design)))
        print(f"wrote {self.out}")
