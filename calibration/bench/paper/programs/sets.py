"""Question sets of the families, with answers that the programs gave in the sandbox."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence

from calibration.bench.paper.programs.families import (
    FAMILIES,
    N_EXAMPLES,
    N_HELD_OUT,
    Family,
    Program,
    written,
)
from calibration.bench.sandbox.running import Json, Limits, Outcome, Sandbox
from detector.errors import CalibrationError

Row = dict[str, object]

_OURS = Limits(cpu_s=60, wall_s=300.0, output_bytes=16 * 2**20)
"""Of one family's programs over all cases."""


_EACH = "\n\ndef each(function, *arguments):\n    return globals()[function](*arguments)\n"
"""All of a family's programs in one job."""


def program_sets(n: int, seed: int, families: Sequence[Family] = FAMILIES) -> dict[str, list[Row]]:
    """`n` rows a set, by set name; the same for the same seed, and the same inputs in every set
    of a family.

    A row has, besides question and answer, the `signature` of a function that would solve it, the
    cases that the question shows (`examples`) and those that such a function is held to
    (`held_out`, the question's own first): each a list of arguments and the value for them.
    Raises SandboxUnavailableError where programs cannot be run apart.
    """
    sandbox = Sandbox(_OURS)
    sets = {}
    for family in families:
        inputs = _inputs(family, n, seed)
        calls: list[list[Json]] = [
            [program.function, *case, *program.besides]
            for program in family.programs
            for cases in inputs
            for case in cases
        ]
        outcomes = iter(sandbox.run(family.text + _EACH, "each", calls))
        for program in family.programs:
            sets[family.set_name(program)] = _rows(family, program, inputs, outcomes)
    return sets


def _inputs(family: Family, n: int, seed: int) -> list[list[list[Json]]]:
    """The inputs of each row, no two alike in it, and no two rows alike."""
    draw = random.Random(f"{family.name} {seed}")  # noqa: S311 (reproducible, not secret)
    rows: dict[str, list[list[Json]]] = {}
    while len(rows) < n:
        cases: dict[str, list[Json]] = {}
        while len(cases) < N_EXAMPLES + N_HELD_OUT:
            case = family.draw(draw)
            cases.setdefault(json.dumps(case), case)
        rows.setdefault(json.dumps(list(cases.values())[: N_EXAMPLES + 1]), list(cases.values()))
    return list(rows.values())


def _rows(
    family: Family,
    program: Program,
    inputs: list[list[list[Json]]],
    outcomes: Iterator[Outcome],
) -> list[Row]:
    rows: list[Row] = []
    for cases in inputs:
        solved: list[tuple[list[Json], Json]] = []
        for case in cases:
            outcome = next(outcomes)
            if outcome.kind != "answer":
                raise CalibrationError(
                    f"program {family.set_name(program)!r} ended by {outcome.kind} "
                    f"({outcome.detail}): its answers are to be exact, so correct it"
                )
            solved.append((case, outcome.value))
        examples, held_out = solved[:N_EXAMPLES], solved[N_EXAMPLES:]
        shown = [f"{family.shown(case)} {written(value)}" for case, value in examples]
        asked, answer = held_out[0]
        rows.append(
            {
                "question": "\n".join([*shown, family.shown(asked)]),
                "answer": answer if isinstance(answer, int | str) else written(answer),
                "family": family.name,
                "signature": family.signature,
                "examples": examples,
                "held_out": held_out,
            }
        )
    return rows
