"""The command: when a guard that looks at responses flags, at fixed false-alarm rates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import Alpha, Command, ModelName, set_threads
from calibration.commands.collect import parse_looks
from calibration.paths import require_folder, require_model
from calibration.reading import require_questions
from detector.atomic import write_atomically
from detector.engine.model.default_model import NAME
from detector.errors import CalibrationError
from detector.trajectory import Look, stage


def taken(looks: Sequence[Look], stages: Collection[str]) -> list[Look]:
    """The looks at these stages."""
    return [look for look in looks if stage(look) in stages]


class Streams(Command):
    """What is streamed, to be looked at while it is."""

    questions: CliPositionalArg[list[Path]] = Field(description="questions files, in scope")
    ood: CliVariadicArg[list[Path]] = Field(description="questions files, out of scope")
    model: ModelName = NAME
    n: int = Field(default=800, ge=1, description="questions drawn, of all files in scope together")
    n_ood: int = Field(default=60, ge=1, description="questions drawn of each file out of scope")
    looks: str = Field(default="prompt,4,8,16,32,64", description="as `collect` takes them")
    max_tokens: int = Field(default=64, ge=2, description="of a response")
    alpha: CliVariadicArg[list[Alpha]] = Field(
        default=[0.01, 0.05, 0.1], description="target false-alarm rates"
    )
    out: Path = Field(default=Path("data/streaming"), description="folder of all that is computed")
    docs: Path | None = Field(default=None, description="folder of table and picture; else --out")

    def require(self) -> list[Look]:
        """The looks. Raises what a path or a look is at fault for."""
        looks = parse_looks(self.looks)
        if {stage(look) for look in looks} != {"prompt", "response"}:
            raise CalibrationError(
                f"--looks {self.looks} are not at prompt and response: give some of both",
                param="looks",
            )
        require_questions([*self.questions, *self.ood])
        require_folder(self.out)
        require_model(self.model)
        return list(looks)

    def write(self, name: str, tables: str, picture: bytes) -> None:
        docs = self.docs or self.out
        write_atomically(docs / f"{name}-tables.md", tables.encode())
        write_atomically(docs / f"{name}.png", picture)
        print(tables)
        print(f"wrote {docs / name}-tables.md and {name}.png")


class Measure(Streams):
    """Power and delay of guards that look at responses as they stream; resumes."""

    changing: bool = Field(
        default=True, description="responses that change over to another question's half-way, too"
    )

    def run(self) -> None:
        looks = self.require()
        from calibration.bench.streaming.picture import picture
        from calibration.bench.streaming.sequential import guarded
        from calibration.bench.streaming.sources import change_over, draw, looks_around, stream
        from calibration.bench.streaming.tables import GUARDS, POOLED, markdown
        from detector.engine.model.checkpoint import load_checkpoint

        set_threads()
        alphas = sorted(self.alpha)
        drawn = draw(self.questions, self.ood, self.n, self.n_ood, self.out / "drawn")
        checkpoint = load_checkpoint(self.model, "auto")
        found = stream(checkpoint, drawn, looks, self.max_tokens, self.out / "own")
        outside = {name: [collection] for name, collection in found.outside.items()}
        outside = {POOLED: list(found.outside.values()), **outside}
        whole = guarded(found.inside, outside, alphas[-1])
        own = {
            guard: [whole.at(taken(looks, stages)).measured(alpha) for alpha in alphas]
            for guard, stages in GUARDS.items()
        }
        at, changed = self.max_tokens // 2, []
        if self.changing:
            around = looks_around(looks, at)
            read = change_over(checkpoint, found, around, self.max_tokens, self.out / "read")
            others = {whose: [collection] for whose, collection in read.changed.items()}
            both = guarded(read.inside, others, alphas[-1], since=at)
            changed = [both.measured(alpha) for alpha in alphas]
        self.write("streaming", markdown(own, changed, alphas, at), picture(own, changed, at))


class Patches(Streams):
    """Patches of a response beside its running mean, where it changes over; resumes."""

    sizes: CliVariadicArg[list[int]] = Field(
        default=[4, 8, 16, 32], description="tokens a patch, and between looks at the running mean"
    )
    score: Literal["mahalanobis", "tv-paper"] = Field(default="mahalanobis", description="taken")

    def run(self) -> None:
        at = self.max_tokens // 2
        if any(size < 2 or at % size for size in self.sizes):
            raise CalibrationError(
                f"--sizes {' '.join(map(str, self.sizes))} do not divide the {at} tokens before "
                "the change: give such as do, of 2 tokens or more",
                param="sizes",
            )
        looks = self.require()
        from calibration.bench.streaming import patched
        from calibration.bench.streaming.picture import patched_picture
        from calibration.bench.streaming.sequential import guarded
        from calibration.bench.streaming.sources import change_over, draw, read_whole, stream
        from detector.engine.model.checkpoint import load_checkpoint

        set_threads()
        alphas = sorted(self.alpha)
        guards = patched.guards(sorted(self.sizes), self.max_tokens)
        drawn = draw(self.questions, self.ood, self.n, self.n_ood, self.out / "drawn")
        checkpoint = load_checkpoint(self.model, "auto")
        found = stream(checkpoint, drawn, looks, self.max_tokens, self.out / "own")
        asked = checkpoint, found, patched.looks_of(guards), self.max_tokens, self.out / "patched"
        read, outside = change_over(*asked), read_whole(*asked)
        changed = {whose: [collection] for whose, collection in read.changed.items()}
        others = guarded(
            read.inside, {**changed, patched.WHOLE: [outside]}, alphas[-1], 0, self.score
        )
        compared = patched.compare(guards, others, at, alphas)
        self.write(
            f"patches-{self.score}",
            patched.markdown(compared, alphas, at),
            patched_picture(compared, len(alphas) // 2, at),
        )
