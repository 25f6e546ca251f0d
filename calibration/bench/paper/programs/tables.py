"""The figures of families and of the model's functions as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from calibration.bench.paper.programs.measuring import Interval, Quality, Rung
from calibration.bench.paper.programs.solving import Solved
from detector.conformal import proportion_interval


def percent(value: Interval | None) -> str:
    if value is None:
        return "-"
    middle, low, high = (100 * each for each in value)
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def share(count: int, n: int) -> str:
    return f"{count} of {n}, {percent((count / n, *proportion_interval(count, n)))}"


def ladder_table(rungs: Sequence[Rung], packaged: Mapping[str, tuple[int, int]]) -> str:
    lines = [
        "| set | answered rightly | guard AUROC | guard recall | response TV AUROC "
        "| best surface count | refused by what ships |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for rung in rungs:
        surface = "-" if rung.surface is None else f"{100 * rung.surface:.0f}"
        refused = share(*packaged[rung.name]) if rung.name in packaged else ""
        right = "-" if rung.n_right is None else f"{rung.n_right} of {rung.n}"
        lines.append(
            f"| {rung.name} | {right} | {percent(rung.guard)} "
            f"| {percent(rung.recall)} | {percent(rung.response)} | {surface} | {refused} |"
        )
    return "\n".join(lines)


def quality_table(found: Sequence[Quality], *, pooled: bool) -> str:
    """A row a score, a column a family."""
    titles = list(found[0].within)
    heads = [f"{quality.family} ({quality.n_right} of {quality.n} right)" for quality in found]
    lines = [f"| score | {' | '.join(heads)} |", "|---|" + "---:|" * len(found)]
    for title in titles:
        cells = [percent((q.pooled if pooled else q.within).get(title)) for q in found]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def solved_table(families: Mapping[str, Sequence[Solved]]) -> str:
    lines = [
        "| family | wrote a function | fits the examples | right on new inputs | ended there |",
        "|---|---:|---:|---:|---|",
    ]
    everything = [solved for found in families.values() for solved in found]
    for name, found in {**families, "all": everything}.items():
        n = len(found)
        ended = Counter(solved.ended for solved in found)
        lines.append(
            f"| {name} | {sum(s.wrote for s in found)} of {n} | {sum(s.fits for s in found)} "
            f"| {share(sum(s.solves for s in found), n)} "
            f"| {', '.join(f'{kind} {count}' for kind, count in ended.most_common())} |"
        )
    return "\n".join(lines)
