"""Trajectories of what vLLM runs, pooled from the hidden states of each of its steps.

vLLM puts the rows of all requests of a step on one axis: whole prompts, parts of prompts, one new
token of each response. Which rows are whose, and at which positions, is said by `Part`s. A position
counts once, however often it is run: vLLM runs a request again from the start that it had to put
aside. Nothing is kept a token, and nothing of a request leaves the device.

This file knows nothing of vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from detector.engine.kernels.transfer import to_device
from detector.engine.prefill import Row
from detector.errors import EngineError


class Part(NamedTuple):
    """What a step runs of one request: positions start..stop-1, in the step's rows from `row`."""

    name: str
    row: int
    start: int
    stop: int


@dataclass(eq=False)
class _Pooled:
    """One request: the means over its row's spans so far (spans, L + 1, d), and the place of
    its response's running sum, None where nobody asks for it. Positions below `n_seen` count; the
    last step that had a part of it went to `reached`.
    """

    row: Row
    means: Tensor
    seat: int | None
    n_seen: int = 0
    reached: int = 0


@dataclass
class _Step:
    """What one step adds: for rows of the step, a weight each, into one span of one request;
    and single rows into running sums.
    """

    spans: list[tuple[_Pooled, int, range, float]] = field(default_factory=list)
    sums: list[tuple[int, int]] = field(default_factory=list)
    begun: list[_Pooled] = field(default_factory=list)


class Pool:
    """Means over spans of prompts, and running sums of responses: float32 (n_seats, L + 1, d)."""

    def __init__(self, n_planes: int, width: int, n_seats: int, device: torch.device) -> None:
        self.sums = torch.zeros(n_seats, n_planes, width, device=device)
        self._free = list(range(n_seats))
        self._pooled: dict[str, _Pooled] = {}

    def watch(self, name: str, row: Row, *, sums: bool) -> None:
        """Pool a request from its first step on; `sums` is for looks at its response."""
        means = self.sums.new_zeros(len(row.spans), *self.sums.shape[1:])
        self._pooled[name] = _Pooled(row, means, self._free.pop() if sums else None)

    def forget(self, name: str) -> None:
        pooled = self._pooled.pop(name, None)
        if pooled is not None and pooled.seat is not None:
            self._free.append(pooled.seat)

    def clear(self) -> None:
        for name in list(self._pooled):
            self.forget(name)

    def reached(self, name: str) -> int:
        """How many of its positions have run, in its last step, which begins anew where vLLM had
        to put it aside.
        """
        return self._pooled[name].reached

    def collect(self, parts: Iterable[Part], planes: Sequence[Tensor]) -> None:
        """What a step has run, and the states of all its rows, (rows, d) for each of L + 1."""
        step = _Step()
        for part in parts:
            pooled = self._pooled.get(part.name)
            if pooled is not None:
                pooled.reached = part.stop
                try:
                    _sort(step, pooled, part)
                except EngineError as error:
                    self.unpooled(part.name, error)
        if step.spans:
            self._add_spans(step.spans, planes)
        for pooled in step.begun:
            self.sums[pooled.seat] = pooled.means[0]
        if step.sums:
            self._add_sums(step.sums, planes)

    def _add_sums(self, sums: Sequence[tuple[int, int]], planes: Sequence[Tensor]) -> None:
        """Rows that follow each other, as all do of a step without a prompt, are read where they
        lie: a kernel for all planes, not one a plane.
        """
        seats, rows = (list(column) for column in zip(*sums, strict=True))
        first, n = rows[0], len(rows)
        if rows == list(range(first, first + n)):
            read = [plane[first : first + n] for plane in planes]
        else:
            picked = to_device(rows, self.sums.device)
            read = [plane.index_select(0, picked) for plane in planes]
        states = torch.stack(read, dim=1)
        self.sums.index_add_(0, to_device(seats, self.sums.device), states.float())

    def unpooled(self, name: str, error: EngineError) -> None:
        """A request's trajectory cannot be made. Here that fails the step."""
        raise error

    def _add_spans(
        self, spans: Sequence[tuple[_Pooled, int, range, float]], planes: Sequence[Tensor]
    ) -> None:
        """A weighted sum a span, in float32: on a GPU all of them in one product a plane, whose
        zeros keep requests apart, unless there is a NaN among them, for 0 * NaN is NaN.
        """
        added = None
        if self.sums.device.type == "cuda":
            product = _product(spans, planes)
            added = product if product.isfinite().all() else None
        for index, (pooled, span, rows, weight) in enumerate(spans):
            if added is None:
                own = torch.stack([plane[rows.start : rows.stop] for plane in planes])
                pooled.means[span] += own.sum(1, dtype=torch.float32) * weight
            else:
                pooled.means[span] += added[index]

    def means(self, name: str, span: int) -> Tensor:
        """Over a span of a row that has run: (L + 1, d)."""
        return self._pooled[name].means[span]

    def running_means(self, names: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Over the first so many tokens of responses: (n, L + 1, d). Raises EngineError where
        vLLM has run another number.
        """
        pooled = [self._pooled[name] for name in names]
        for each, count in zip(pooled, counts, strict=True):
            if each.n_seen != len(each.row.ids) + count - 1:
                raise EngineError(
                    f"vLLM has run {each.n_seen} positions of a request of {len(each.row.ids)} "
                    f"and {count - 1} more: its trajectory would be another one"
                )
        seats = to_device([each.seat for each in pooled], self.sums.device)
        return self.sums[seats] / to_device(list(counts), self.sums.device)[:, None, None]


def _product(
    spans: Sequence[tuple[_Pooled, int, range, float]], planes: Sequence[Tensor]
) -> Tensor:
    """All spans' sums, (spans, L + 1, d), over the rows that are in any."""
    rows = sorted({row for _, _, theirs, _ in spans for row in theirs})
    place = {row: index for index, row in enumerate(rows)}
    weights = torch.zeros(len(spans), len(rows))
    for index, (_, _, theirs, weight) in enumerate(spans):
        weights[index, [place[row] for row in theirs]] = weight
    device = planes[0].device
    weights, picked = to_device(weights, device), to_device(rows, device)
    products = [weights @ plane.index_select(0, picked).float() for plane in planes]
    return torch.stack(products, dim=1)


def _sort(step: _Step, pooled: _Pooled, part: Part) -> None:
    """What a part adds. Raises EngineError when it leaves out positions that count: those that
    vLLM took from its prefix cache, whose states nobody has seen.
    """
    prompt, first = len(pooled.row.ids), max(part.start, pooled.n_seen)
    if part.stop <= first:
        return
    if pooled.n_seen == part.start >= prompt and part.stop == part.start + 1:
        # Most of all parts: the next token of a response.
        if pooled.seat is not None:
            step.sums.append((pooled.seat, part.row))
        pooled.n_seen = part.stop
        return
    for span, (start, stop) in enumerate(pooled.row.spans):
        if max(start, pooled.n_seen) < min(stop, part.start):
            raise EngineError("vLLM took positions from its prefix cache that are judged")
        positions = range(max(start, first), min(stop, part.stop, prompt))
        if positions:
            shift = part.row - part.start
            rows = range(positions.start + shift, positions.stop + shift)
            step.spans.append((pooled, span, rows, 1 / (stop - start)))
    if pooled.seat is not None:
        if pooled.n_seen < prompt <= part.stop:
            step.begun.append(pooled)
        step.sums += [
            (pooled.seat, part.row + position - part.start)
            for position in range(max(first, prompt), part.stop)
        ]
    pooled.n_seen = part.stop
