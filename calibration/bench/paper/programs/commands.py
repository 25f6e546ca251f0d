"""The commands that families of programs are for."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Alpha, Command, ModelCommand, set_threads
from calibration.paths import require_folder, require_model
from calibration.reading import require_questions
from detector.atomic import write_atomically
from detector.engine.model.default_model import NAME


class Solve(ModelCommand):
    """Let the model write functions from examples and run them apart, as SolverLearner; resumes."""

    sets: CliPositionalArg[list[Path]] = Field(description="sets of programs, as `ladder` has them")
    n: int = Field(default=1, ge=1, description="first problems of each set")
    max_tokens: int = Field(default=256, ge=1, description="of what it writes")
    responses: Path | None = Field(
        default=None,
        description="file with a `response` beside each question of --out's prompts.jsonl, made by "
        "any model: these are run, and none is asked",
    )
    out: Path = Field(description="folder of prompts, collections and labels")

    def run(self) -> None:
        from calibration.bench.paper.programs.solving import Solved, read_problems, solve
        from calibration.bench.paper.programs.tables import solved_table
        from calibration.bench.sandbox.running import Sandbox

        require_questions(self.sets)
        require_folder(self.out)
        sandbox = Sandbox()
        sets = {path.stem: read_problems(path)[: self.n] for path in self.sets}
        if self.responses is None:
            require_model(self.model)
            from calibration.bench.paper.programs.asking import asked
            from detector.engine.model.checkpoint import load_checkpoint

            set_threads()
            checkpoint = load_checkpoint(self.model, self.dtype)
            written = asked(checkpoint, sets, self.out, self.max_tokens)
        else:
            from calibration.bench.paper.programs.asking import given

            written = given(self.responses, sets, self.out)
        by_family: dict[str, list[Solved]] = {}
        for name, problems in sets.items():
            print(f"running: {name}", file=sys.stderr)
            found = []
            for problem, response in zip(problems, written[name], strict=True):
                found.append(solve(sandbox, problem, response))
                by_family.setdefault(problem.family, []).append(found[-1])
            lines = [
                json.dumps(
                    {
                        "question": problem.prompt,
                        "wrote": solved.wrote,
                        "fits": solved.fits,
                        "solves": solved.solves,
                        "ended": solved.ended,
                        "right": list(solved.right_held_out),
                    }
                )
                for problem, solved in zip(problems, found, strict=True)
            ]
            write_atomically(self.out / f"{name}.jsonl", ("\n".join(lines) + "\n").encode())
        print(solved_table(by_family))
        print(f"wrote {len(sets)} files of labels to {self.out}")


class Programs(Command):
    """Measure OOD along families of programs, and quality by exact labels; tables and JSON."""

    ladder: CliPositionalArg[Path] = Field(description="folder of `ladder`'s sets")
    collected: Path = Field(description="`collect`'s --out, with looks prompt and end")
    family: CliVariadicArg[list[str]] = Field(default=[], description="names; all if left")
    first: int = Field(default=60, ge=1, le=99, description="of every 100 ID rows fit")
    alpha: Alpha = Field(default=0.05, description="target false-alarm rate")
    packaged: CliVariadicArg[list[str]] = Field(
        default=[], description="sets that the packaged artifact is asked about too"
    )
    out: Path = Field(description="folder to write to")

    def run(self) -> None:
        from calibration.bench.paper.programs.measuring import families, measure
        from calibration.bench.paper.programs.tables import ladder_table, quality_table

        require_folder(self.out)
        set_threads()
        packaged = self._refused() if self.packaged else {}
        rungs, quality = [], []
        for family in families(self.family):
            print(f"scoring: {family.name}", file=sys.stderr)
            found, labelled = measure(
                family, self.ladder, self.collected, first=self.first, alpha=self.alpha
            )
            rungs += found
            quality += [labelled] if labelled is not None else []
        tables = ladder_table(rungs, packaged)
        if quality:
            within, pooled = (quality_table(quality, pooled=pooled) for pooled in (False, True))
            tables += f"\n\nWithin sets:\n\n{within}\n\nSets pooled:\n\n{pooled}"
        document = {
            "ladder": [asdict(rung) for rung in rungs],
            "quality": [asdict(found) for found in quality],
            "packaged": packaged,
        }
        write_atomically(self.out / "programs.json", json.dumps(document, indent=1).encode())
        write_atomically(self.out / "programs-tables.md", f"{tables}\n".encode())
        print(tables)
        print(f"wrote {self.out / 'programs.json'} and programs-tables.md")

    def _refused(self) -> dict[str, tuple[int, int]]:
        from calibration.bench.paper.programs.shipped import refused
        from calibration.bench.scope.commands import packaged_artifact
        from detector import artifact as artifacts
        from detector.engine.model.checkpoint import load_checkpoint

        artifact = artifacts.load(packaged_artifact())
        checkpoint = load_checkpoint(NAME, artifact.manifest.fingerprint.dtype)
        paths = [self.ladder / f"{name}.jsonl" for name in self.packaged]
        return refused(artifact, checkpoint, paths, self.out / "packaged", self.alpha)
