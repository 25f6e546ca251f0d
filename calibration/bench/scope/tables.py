"""The tables of a measurement, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calibration.bench.scope.result import Design, Family, Measured, SetRecord, Share
from calibration.bench.scope.summary import AUROC, FEW, MANY, Bars, Figure, meets, summary

TITLES: dict[Family, str] = {
    "P": "In scope, rewritten",
    "A": "In scope, from elsewhere",
    "dialogues": "In scope, dialogues by kind of last turn",
    "C": "Borderline",
    "MATH": "MATH",
    "B": "Other kinds",
    "D": "In disguise",
    "ood-turns": "In scope until the last turn, by what that asks",
    "fair": "The fair comparison",
}
"""The families in the order in which they are told."""


def markdown(measured: Measured, bars: Bars) -> str:
    """A summary for each alpha, then every set for each alpha."""
    parts = []
    for alpha in measured.alphas:
        parts += [f"## Summary at alpha = {alpha}", "", *_summary(measured, alpha, bars), ""]
    for alpha in measured.alphas:
        parts += [f"## Refused of each set at alpha = {alpha}", "", *_sets(measured, alpha), ""]
    return "\n".join(parts)


def _summary(measured: Measured, alpha: str, bars: Bars) -> Iterator[str]:
    designs = _carrying(measured, alpha)
    figures = [summary(measured, design, alpha) for design in designs]
    at = bars.get(alpha, {})
    yield from heading(["figure", *(["bar"] if at else []), *(d.name for d in designs)])
    for name in (*FEW, *MANY):
        if not any(name in found for found in figures):
            continue
        bar = at.get(name)
        shown = [_figure(name, found.get(name), bar) for found in figures]
        yield line([_said(name), *([_bar(name, bar)] if at else []), *shown])


def _sets(measured: Measured, alpha: str) -> Iterator[str]:
    designs = _carrying(measured, alpha)
    yield from heading(["set", "questions", *(design.name for design in designs)])
    for family, title in TITLES.items():
        records = measured.of_family(family)
        if not records:
            continue
        yield line([f"**{title}**", "", *("" for _ in designs)])
        for record in records:
            for name, places in _parts(record):
                shares = [_share(design, alpha, record, places) for design in designs]
                yield line([name, str(len(places)), *map(with_interval, shares)])


def _parts(record: SetRecord) -> Iterator[tuple[str, list[int]]]:
    """The set, and each kind of its questions where they have kinds."""
    yield record.name, list(range(len(record.keys)))
    kinds = record.kinds or ()
    for kind in sorted(set(kinds)):
        yield f"· {kind}", [place for place, found in enumerate(kinds) if found == kind]


def _share(design: Design, alpha: str, record: SetRecord, places: Sequence[int]) -> Share:
    flags = design.refused[alpha][record.name]
    return Share(refused=sum(flags[place] for place in places), n=len(places))


def _carrying(measured: Measured, alpha: str) -> list[Design]:
    return [design for design in measured.designs if alpha in design.refused]


def with_interval(share: Share) -> str:
    low, high = share.interval
    return f"{share.rate:.1%} ({low:.1%} to {high:.1%})"


def _figure(name: str, figure: Figure | None, bar: float | None) -> str:
    if figure is None:
        return "-"
    shown = _number(name, figure.value)
    if bar is not None and not meets(name, figure.value, bar):
        shown = f"**{shown}**"
    if figure.worst is not None:
        return f"{shown} {figure.worst}"
    if figure.share is not None:
        low, high = figure.share.interval
        return f"{shown} ({low:.1%} to {high:.1%})"
    return shown


def _number(name: str, value: float) -> str:
    return f"{value:.4f}" if name in AUROC else f"{value:.1%}"


def _bar(name: str, bar: float | None) -> str:
    if bar is None:
        return ""
    return f"{'≤' if name in FEW else '≥'} {_number(name, bar)}"


def _said(name: str) -> str:
    if name in AUROC:
        return name
    return f"{name}, refused"


def heading(cells: Sequence[str]) -> Iterator[str]:
    yield line(cells)
    yield line(["---", *("---:" for _ in cells[1:])])


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
