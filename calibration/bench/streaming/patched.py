"""Looks at patches beside the running mean: which guard first notices that a response changes over.

A guard looks at the running mean every K tokens, or at each patch of K tokens alone, or at both.
All of them are calibrated as the maximum over their looks, so that the false-alarm rate is of the
whole response however many patches it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from calibration.bench.scope.tables import heading, line
from calibration.bench.streaming.sequential import Guarded, Measured
from calibration.bench.streaming.tables import alarms, before, delayed, power, spread
from detector.trajectory import PROMPT, Look, in_order, patches

WHOLE = "whole, out of scope"
"""The name of responses that are another question's from their beginning."""


@dataclass(frozen=True)
class PatchGuard:
    """Where a guard looks, besides the prompt, every `size` tokens of `most`."""

    name: str
    size: int
    looks: tuple[Look, ...]


def guards(sizes: Sequence[int], most: int) -> list[PatchGuard]:
    """For each size the running mean, the patches, and both."""
    found = []
    for size in sizes:
        means = tuple(range(size, most + 1, size))
        alone = tuple(patches(f"1-{most}/{size}"))
        found += [
            PatchGuard("running mean", size, (PROMPT, *means)),
            PatchGuard("patches", size, (PROMPT, *alone)),
            PatchGuard("both", size, (PROMPT, *in_order({*means, *alone}))),
        ]
    return found


def looks_of(guards: Sequence[PatchGuard]) -> list[Look]:
    """All looks that are needed to compare them."""
    return in_order({look for guard in guards for look in guard.looks})


@dataclass(frozen=True)
class Compared:
    """What each guard does at each alpha: to responses that change over, and to whole ones."""

    guard: PatchGuard
    changed: Sequence[Measured | None]
    whole: Sequence[Measured | None]


def compare(
    guards: Sequence[PatchGuard], streams: Guarded, at: int, alphas: Sequence[float]
) -> list[Compared]:
    """`streams` are all that should be flagged; the others than whole ones change over after `at`
    tokens.
    """
    names = {True: [WHOLE], False: [name for name in streams.others if name != WHOLE]}
    changed, whole = (
        replace(
            streams,
            others={name: streams.others[name] for name in names[is_whole]},
            since=0 if is_whole else at,
        )
        for is_whole in (False, True)
    )
    return [
        Compared(
            guard,
            [changed.at(guard.looks).measured(alpha) for alpha in alphas],
            [whole.at(guard.looks).measured(alpha) for alpha in alphas],
        )
        for guard in guards
    ]


def markdown(compared: Sequence[Compared], alphas: Sequence[float], at: int) -> str:
    parts = []
    for place, alpha in enumerate(alphas):
        found = {each.guard: each.changed[place] for each in compared}
        names = [name for each in found.values() if each for name in each.delays][:2]
        parts += [f"## alpha = {alpha:g}", "", *_alarms(found), ""]
        for name in names:
            parts += [f"### changes over after {at} tokens, {name}", "", *_changed(found, name), ""]
        entire = {each.guard: each.whole[place] for each in compared}
        parts += ["### out of scope from the beginning", "", *_whole(entire), ""]
    return "\n".join(parts)


def _alarms(found: Mapping[PatchGuard, Measured | None]) -> list[str]:
    rows = [*heading(["K", "looks at", "looks", "false alarms", "dealt anew"])]
    for guard, measured in found.items():
        if measured is not None:
            cells = [str(guard.size), guard.name, str(len(guard.looks)), *alarms(measured)]
            rows.append(line(cells))
    return rows


def _changed(found: Mapping[PatchGuard, Measured | None], name: str) -> list[str]:
    head = ["K", "looks at", "flagged before", "power after", "dealt anew"]
    rows = [*heading([*head, "tokens since the change", "expected tokens", "tokens saved"])]
    for guard, measured in found.items():
        if measured is not None:
            delay, drawn = measured.delays[name], spread(measured.drawn_power[name])
            cells = [before(delay), power(delay), drawn, *delayed(delay)]
            rows.append(line([str(guard.size), guard.name, *cells]))
    return rows


def _whole(found: Mapping[PatchGuard, Measured | None]) -> list[str]:
    head = ["K", "looks at", "power", "dealt anew", "at the prompt"]
    rows = [*heading([*head, "tokens until the flag", "expected tokens", "tokens saved"])]
    for guard, measured in found.items():
        if measured is not None:
            delay, drawn = measured.delays[WHOLE], spread(measured.drawn_power[WHOLE])
            cells = [power(delay), drawn, f"{delay.at_prompt:.1%}", *delayed(delay)]
            rows.append(line([str(guard.size), guard.name, *cells]))
    return rows
