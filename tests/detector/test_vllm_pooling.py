"""What is pooled of vLLM's steps, without vLLM."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detector.backend import Ask, RenderedQuestion
from detector.engine.prefill import Row, rows_of
from detector.engine.run import Run
from detector.errors import EngineError
from detector.trajectory import END, PROMPT, PROMPT_MEAN, QUESTION, patch
from detector.vllm.pooling import Part, Pool, _Pooled, _product

N_PLANES, WIDTH = 3, 4
LOOKS = frozenset({QUESTION, PROMPT_MEAN, PROMPT, 2, patch(3, 4), END})
CPU = torch.device("cpu")


def states_of(seed: int, n: int) -> Tensor:
    return torch.randn(N_PLANES, n, WIDTH, generator=torch.Generator().manual_seed(seed))


def pool() -> Pool:
    return Pool(N_PLANES, WIDTH, 4, CPU)


def row_of(n_prompt: int, response: int | None = None) -> Row:
    """A question of the middle of its prompt."""
    prompt = tuple(range(1, n_prompt + 1))
    question = RenderedQuestion(prompt, (n_prompt // 3, n_prompt - n_prompt // 4))
    traced = None if response is None else (9,) * response
    (row,) = rows_of(Run(Ask(prompt, 9, question=question, response=traced)), LOOKS)
    return row


def step(pooled: Pool, parts: Sequence[tuple[str, Tensor, int, int]], padding: int = 0) -> None:
    """One step of these requests' positions start..stop-1, beside others that nobody watches."""
    rows, said = [states_of(99, 2)], [Part("nobody", 0, 0, 2)]
    for name, states, start, stop in parts:
        said.append(Part(name, sum(each.shape[1] for each in rows), start, stop))
        rows.append(states[:, start:stop])
    rows.append(torch.full((N_PLANES, padding, WIDTH), torch.nan))
    pooled.collect(said, list(torch.cat(rows, dim=1)))


def assert_pooled(pooled: Pool, name: str, row: Row, states: Tensor) -> None:
    for start, stop in row.spans:
        place = row.spans.index((start, stop))
        torch.testing.assert_close(pooled.means(name, place), states[:, start:stop].mean(1))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 2), st.data())
def test_means_are_those_of_all_positions_however_they_come(
    sizes: list[int], n_aside: int, data: st.DataObject
) -> None:
    """In parts of any sizes, from the start again after being put aside, beside a neighbour."""
    n_prompt = sum(sizes)
    n_response = data.draw(st.integers(0, 5))
    states = states_of(0, n_prompt + n_response)
    neighbour, theirs = row_of(7), states_of(1, 7)
    row, pooled = row_of(n_prompt), pool()
    pooled.watch("a", row, sums=True)
    pooled.watch("b", neighbour, sums=True)
    step(pooled, [("b", theirs, 0, 4)], padding=1)
    at = 0
    for size in sizes:
        if n_aside and data.draw(st.booleans()):
            step(pooled, [("a", states, 0, at)] if at else [])
        step(pooled, [("a", states, at, at + size)], padding=3)
        at += size
        assert pooled.reached("a") == at
    assert_pooled(pooled, "a", row, states)
    for n in range(1, n_response + 1):
        if n_aside and data.draw(st.booleans()):
            # The newest position comes with the prompt's, which count no second time.
            step(pooled, [("a", states, 0, n_prompt + n)])
        else:
            step(pooled, [("a", states, n_prompt + n - 1, n_prompt + n)])
        expected = states[:, n_prompt - 1 : n_prompt + n].mean(1)
        torch.testing.assert_close(pooled.running_means(["a"], [n + 1])[0], expected)
    step(pooled, [("b", theirs, 4, 7)])
    assert_pooled(pooled, "b", neighbour, theirs)


def test_a_trace_is_pooled_at_all_its_looks_at_once() -> None:
    row, pooled, states = row_of(6, response=4), pool(), states_of(0, 10)
    pooled.watch("a", row, sums=False)
    step(pooled, [("a", states, 0, 5)])
    step(pooled, [("a", states, 5, 10)])
    assert set(row.looks) == LOOKS
    assert_pooled(pooled, "a", row, states)


def test_one_product_gives_what_spans_give_alone() -> None:
    """What a GPU runs; rows that are in no span have no part in it."""
    states, rows = states_of(0, 9), [range(1, 4), range(3, 4), range(6, 9)]
    spans = [
        (_Pooled(row_of(3), states, None), 0, each, 1 / (n + 1)) for n, each in enumerate(rows)
    ]
    states[:, 5] = torch.nan
    for index, (_, _, each, weight) in enumerate(spans):
        expected = states[:, each.start : each.stop].sum(1) * weight
        torch.testing.assert_close(_product(spans, list(states))[index], expected)


def test_a_nan_stays_with_the_request_that_has_it() -> None:
    pooled, sound, broken = pool(), states_of(0, 6), states_of(1, 6)
    broken[1, 3, 2] = torch.nan
    row = row_of(6)
    for name in ("a", "b"):
        pooled.watch(name, row, sums=True)
    step(pooled, [("b", broken, 0, 6), ("a", sound, 0, 6)])
    assert_pooled(pooled, "a", row, sound)
    assert not pooled.means("b", row.looks[PROMPT_MEAN]).isfinite().all()


def test_seats_are_given_again_and_begin_anew() -> None:
    pooled = pool()
    for n in range(12):
        states = states_of(n, 5)
        pooled.watch(str(n), row_of(4), sums=True)
        step(pooled, [(str(n), states, 0, 4)])
        step(pooled, [(str(n), states, 4, 5)])
        expected = states[:, 3:5].mean(1)
        torch.testing.assert_close(pooled.running_means([str(n)], [2])[0], expected)
        pooled.forget(str(n))
    pooled.clear()


def test_positions_that_nobody_has_seen_are_no_part_of_a_mean() -> None:
    """What comes from a prefix cache has keys and no states."""
    pooled, states = pool(), states_of(0, 9)
    pooled.watch("a", row_of(9), sums=True)
    with pytest.raises(EngineError, match="prefix cache"):
        step(pooled, [("a", states, 6, 9)])
    prompt = tuple(range(1, 10))
    (row,) = rows_of(Run(Ask(prompt, 9)), frozenset({PROMPT}))
    pooled.watch("b", row, sums=True)
    step(pooled, [("b", states, 6, 9)])
    torch.testing.assert_close(pooled.means("b", 0), states[:, 8])


def test_a_count_that_is_not_what_has_run_is_no_trajectory() -> None:
    pooled = pool()
    pooled.watch("a", row_of(4), sums=True)
    step(pooled, [("a", states_of(0, 4), 0, 4)])
    pooled.running_means(["a"], [1])
    with pytest.raises(EngineError, match="has run 4 positions of a request of 4 and 1 more"):
        pooled.running_means(["a"], [2])
