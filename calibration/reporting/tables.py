"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(table: Sequence[Sequence[str]], n_left: int = 1) -> list[str]:
    """Lines of a table whose first row is its heading; the first `n_left` columns hold words."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if place < n_left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]


def percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"
