"""SolverLearner (arXiv 2408.00114): examples -> a function by the model -> its answers.

The model induces: it is shown examples and writes a function. It is not asked to apply it; the
sandbox does, to inputs that it has not seen, so that a wrong label is a wrong function's and never
a slip in applying a right one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from calibration.bench.paper.programs.families import written
from calibration.bench.sandbox.running import Json, Outcome, Sandbox, equal
from calibration.reading import Row, read, wrong

SOLVER = "solver"
PROMPT = """\
You are an expert mathematician and programmer. Below are examples of what a function returns.

{examples}

Identify the underlying pattern, and implement the function in Python so that it returns the \
right value for any such input:

def {signature}:

Place the function between START_CODE and END_CODE."""
"""After the paper's, for any family: a function `solver` between two marks. Its wording is ours,
and it asks for no test cases: those are ours to run.
"""

_MARKED = re.compile(r"START_CODE(.*?)(?:END_CODE|\Z)", re.DOTALL)
_FENCED = re.compile(r"```(?:python)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)
_BARE = re.compile(
    rf"^(?:(?:import|from) .*\n\s*)*def {SOLVER}\b.*(?:\n(?:[ \t].*)?)*", re.MULTILINE
)

Case = tuple[list[Json], Json]
"""Arguments, and the value for them."""


@dataclass(frozen=True)
class Problem:
    """A row of a program's set: what a function is shown, and what it is held to."""

    family: str
    signature: str
    examples: tuple[Case, ...]
    held_out: tuple[Case, ...]

    @property
    def prompt(self) -> str:
        shown = [
            f"{SOLVER}({', '.join(map(repr, arguments))}) == {value!r}"
            for arguments, value in self.examples
        ]
        return PROMPT.format(examples="\n".join(shown), signature=self.signature)


@dataclass(frozen=True)
class Solved:
    """What became of a model's function: an outcome a case; none where it wrote none."""

    examples: tuple[Outcome, ...]
    held_out: tuple[Outcome, ...]
    right_examples: tuple[bool, ...]
    right_held_out: tuple[bool, ...]

    @property
    def wrote(self) -> bool:
        return bool(self.held_out)

    @property
    def fits(self) -> bool:
        """Whether it gives what every example shows."""
        return self.wrote and all(self.right_examples)

    @property
    def solves(self) -> bool:
        """Whether it is right on every input that it was not shown: the paper's accuracy."""
        return self.wrote and all(self.right_held_out)

    @property
    def ended(self) -> str:
        """How it went on inputs that it was not shown: the first that is no answer, or answer."""
        if not self.wrote:
            return "nothing written"
        return next((o.kind for o in self.held_out if o.kind != "answer"), "answer")


def read_problems(path: Path) -> list[Problem]:
    """The rows of a set that `ladder` wrote. Raises QuestionsError where one is none."""
    rows, _ = read(path)
    return [_problem(row) for row in rows]


def _problem(row: Row) -> Problem:
    family, signature = row.values.get("family"), row.values.get("signature")
    if not isinstance(family, str) or not isinstance(signature, str):
        raise wrong(
            row.where,
            "there is no 'family' or 'signature': give a set of a program, as `ladder` has",
        )
    return Problem(family, signature, _cases(row, "examples"), _cases(row, "held_out"))


def _cases(row: Row, name: str) -> tuple[Case, ...]:
    found: Any = row.values.get(name)
    if not isinstance(found, list) or not found:
        raise wrong(row.where, f"{name!r} is no list of cases: give a set as `ladder` writes it")
    for case in found:
        if not isinstance(case, list) or len(case) != 2 or not isinstance(case[0], list):
            raise wrong(row.where, f"{name!r} has a case that is not [arguments, value]")
    return tuple((case[0], cast(Json, case[1])) for case in found)


def code_of(response: str) -> str | None:
    """The program in a response: what is marked, or fenced, or the bare function."""
    for pattern in (_MARKED, _FENCED):
        for found in pattern.findall(response):
            if f"def {SOLVER}" in found:
                return str(_FENCE.sub("", found))
    bare = _BARE.search(response)
    return bare[0] if bare else None


def solve(sandbox: Sandbox, problem: Problem, response: str) -> Solved:
    """Run the function of a response on the examples and on what it was not shown."""
    code = code_of(response)
    if code is None:
        return Solved((), (), (), ())
    cases = (*problem.examples, *problem.held_out)
    outcomes = sandbox.run(code, SOLVER, [arguments for arguments, _ in cases])
    right = tuple(
        outcome.kind == "answer" and same(outcome.value, value)
        for outcome, (_, value) in zip(outcomes, cases, strict=True)
    )
    n = len(problem.examples)
    return Solved(outcomes[:n], outcomes[n:], right[:n], right[n:])


def same(found: Json, value: Json) -> bool:
    """Equal, or printed alike: a function that returns 23 where "23" is meant has found the way."""
    return equal(found, value) or written(found) == written(value)
