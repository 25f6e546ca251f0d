"""What the next step is: the schedule says it, the engine does it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from detector.engine.prefill import Row
from detector.engine.run import PromptEnd, Run


@dataclass(frozen=True)
class Prefill:
    """Next: these whole sequences at once."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Chunk:
    """Next: positions start..stop-1 of a row of the request that is staged, aside from the slots;
    `is_last` when no position of it is left to run after these.
    """

    row: Row
    start: int
    stop: int
    is_last: bool


@dataclass(frozen=True)
class Resume:
    """Next: these, whose prompts were prefilled ahead and kept, move into slots."""

    runs: tuple[Run, ...]


class Sharing(NamedTuple):
    """A response that begins at its prompt's `end`, whose keys are in the slot of the `source`,
    which runs on the same prompt.
    """

    run: Run
    source: Run
    end: PromptEnd


@dataclass(frozen=True)
class Share:
    """Next: these begin, and nothing is prefilled for them."""

    begun: tuple[Sharing, ...]


@dataclass(frozen=True)
class Decode:
    """Next: one token for each of these, which occupy slots 0..n-1."""

    runs: tuple[Run, ...]


def begin(work: Prefill | Chunk | Resume | Share) -> None:
    """Tell the requests that are its that their prefill begins."""
    match work:
        case Prefill(rows):
            runs: Iterable[Run] = [row.run for row in rows]
        case Chunk(row, start):
            runs = [] if start else [row.run]
        case Resume(resumed):
            runs = resumed
        case Share(begun):
            runs = [each.run for each in begun]
    for run in runs:
        run.begin()


class Freed(NamedTuple):
    """A slot that an ended request has left, and who moves into it from slot `source`."""

    slot: int
    source: int
    moved: Run | None
