"""`neighbours`: puts calibration questions into an artifact, by which flags are explained."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Command
from calibration.paths import require_artifact, require_collections, require_file


class Neighbours(Command):
    """Write a copy of an artifact with calibration questions that flagged ones are compared with.
    Never needs the model.
    """

    artifact: CliPositionalArg[Path] = Field(description="artifact, .safetensors")
    collected: CliPositionalArg[list[Path]] = Field(description="collections that it was fitted to")
    out: Path = Field(description="artifact to write; may be the same")
    contrast: CliVariadicArg[list[Path]] = Field(
        default=[], description="collections of background questions, to name kinds of them"
    )
    n: int = Field(default=1000, ge=1, description="how many questions")
    keep_questions: bool = Field(
        default=False, description="their texts too, which anybody who has the artifact can read"
    )
    keep_questions_of: CliVariadicArg[list[str]] = Field(
        default=[], description="the texts of these files alone, by their names without ending"
    )

    def run(self) -> None:
        require_artifact(self.artifact)
        require_collections(self.collected)
        require_collections(self.contrast, "contrast")
        require_file(self.out)
        from calibration.neighbours import NeighbourOptions, with_neighbours
        from calibration.pooling import background_pool, pools_of
        from calibration.reporting.judged import read_alike
        from detector import artifact as artifacts

        artifact = artifacts.load(self.artifact)
        pools = pools_of(artifact.manifest, read_alike(artifact, self.collected))
        background = None
        if self.contrast:
            background, _ = background_pool(read_alike(artifact, self.contrast), pools)
        written = with_neighbours(
            artifact,
            pools["fit"],
            pools["conformal"],
            background,
            NeighbourOptions(self.n, self.keep_questions, tuple(self.keep_questions_of)),
        )
        written.save(self.out)
        names = written.manifest.neighbours
        assert names is not None
        n_texts = sum(each.text is not None for each in names.questions)
        print(
            f"{len(names.questions)} conformal questions ({n_texts} with their texts) and "
            f"{len(names.kinds)} kinds out of scope\n"
            f"artifact {artifact.id} with neighbours is {written.id}: {self.out} "
            f"({self.out.stat().st_size / 1e6:.2f} MB)"
        )
