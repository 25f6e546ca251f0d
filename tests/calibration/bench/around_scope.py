"""A few sets around a scope of generated problems."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from calibration.bench.scope.sets import ScopeSet, read_sets
from calibration.generate import generate


def write(folder: Path, name: str, texts: Sequence[str]) -> Path:
    path = folder / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    return path


def around_scope(folder: Path) -> tuple[Path, Path]:
    """A folder of sets, and a file of MATH."""
    problems = [text for text, _ in generate(40, seed=7)]
    data = folder / "data"
    write(data, "P_00_unchanged", problems[:12])
    write(data, "P_upper", [text.upper() for text in problems[:12]])
    write(data, "A_elsewhere", problems[12:24])
    write(data, "B_letters", [f"zz{'z' * n}" for n in range(10)])
    write(data, "C_bare_arithmetic_other", [f"{n} + {n + 1}" for n in range(10)])
    write(data, "D_hidden", [f"{problems[0]} zz{'z' * n}" for n in range(10)])
    texts = [f"Let $x^{n} = {n + 3}$. Find all real $x$." for n in range(12)]
    return data, write(folder, "MATH_made_up", texts)


def read_around_scope(folder: Path) -> list[ScopeSet]:
    data, math = around_scope(folder)
    return read_sets(data, [math])
