"""Pools: no template and no question on both sides of a split, whatever it is typed like."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from calibration.collection import Collection, CollectionFolder, read_collections
from calibration.pooling import Pool, background_pool, made_of, pooled
from calibration.questions import OF, Split, contained
from detector.engine.model.checkpoint import Checkpoint
from detector.errors import CalibrationError
from tests.calibration.conftest import Collected, collect_files
from tests.calibration.customs import customs


@pytest.fixture(scope="module")
def inside(collected: Collected) -> list[Collection]:
    return read_collections(collected.inside)


def of(pool: Pool) -> list[list[str]]:
    return [contained(*each) for each in zip(pool.keys, pool.fields, strict=True)]


def test_rows_go_where_their_questions_go(inside: list[Collection]) -> None:
    pools = pooled(inside)
    assert pools.n_questions == 150
    assert 140 < pools.n_templates <= 150
    assert pools.n_left_out == 0
    assert sum(pools.sizes.values()) == sum(len(each.keys) for each in inside)
    units: set[int] = set()
    for split in get_args(Split):
        pool = pools[split]
        for found, unit in zip(of(pool), pool.units, strict=True):
            assert {pools.splits[key] for key in found} == {split}
            assert unit == pools.templates[found[0]]
        assert not units & set(pool.units)
        units |= set(pool.units)
    # A form that is typed otherwise is a row of its own, under the key of its question at times.
    assert any(len(set(pool.keys)) < len(pool) for pool in pools.by_split.values())


def test_with_known_templates_every_question_counts(inside: list[Collection]) -> None:
    pools = pooled(inside, known_templates=True)
    # `vary` split by template: where that differs, rows of several questions may be left out.
    assert pools.n_left_out <= 3
    units = {unit for pool in pools.by_split.values() for unit in pool.units}
    assert len(units) == 150


def test_rows_of_several_splits_are_left_out(inside: list[Collection]) -> None:
    pools = pooled(inside)
    keys = {
        split: next(k for k, s in pools.splits.items() if s == split) for split in get_args(Split)
    }
    made = inside[1]
    mixed = {OF: f"{keys['fit']} {keys['holdout']}"}
    changed = replace(made, fields=(mixed, *made.fields[1:]))
    assert pooled([inside[0], changed]).n_left_out == 1
    lost = replace(made, fields=({OF: "0" * 16}, *made.fields[1:]))
    with pytest.raises(CalibrationError, match="'variations' has rows made of question 0000"):
        pooled([inside[0], lost])
    with pytest.raises(CalibrationError, match="give the collections of all files"):
        pooled(inside[1:])


def test_few_templates_leave_a_split_empty(checkpoint: Checkpoint, tmp_path: Path) -> None:
    texts, forms = customs(n_each=6, seed=0)
    one = [text for text, form in zip(texts, forms, strict=True) if form == 3]
    (tmp_path / "one.jsonl").write_text("\n".join(json.dumps({"question": t}) for t in one))
    pools = pooled(read_collections(collect_files(checkpoint, [tmp_path / "one.jsonl"], tmp_path)))
    pools.require("fit")
    with pytest.raises(CalibrationError) as caught:
        pools.require("fit", "conformal")
    assert caught.value.message == (
        "the conformal split is empty: the 6 questions are of 1 template, and all of a template "
        "go to one split; collect in-scope questions of more templates"
    )


def test_background_knows_the_fit_split_alone(
    inside: list[Collection], collected: Collected
) -> None:
    pools = pooled(inside)
    beside = CollectionFolder(collected.background).read()
    pool, n_out = background_pool([beside], pools)
    assert (len(pool), n_out) == (len(beside.keys), 0)
    for fields in pool.fields:
        assert all(pools.splits[key] == "fit" for key in fields.get(OF, "").split())
    # As if every question were of another split; and what is in scope is no background.
    elsewhere = replace(pools, splits=dict.fromkeys(pools.splits, "holdout"))
    kept, n_out = background_pool([beside, inside[0]], elsewhere)
    assert all(OF not in fields for fields in kept.fields)
    assert len(kept) + n_out == len(beside.keys) + 150
    assert not set(kept.keys) & set(pools.splits)


def test_rows_made_of_one_split(inside: list[Collection], collected: Collected) -> None:
    pools = pooled(inside)
    held_out = CollectionFolder(collected.held_out).read()
    pool, n_out = made_of([held_out], pools, "holdout")
    assert (len(pool), n_out) == (len(held_out.keys), 0)
    assert set(pool.units) <= {pools.templates[key] for key in pools.splits}
    assert len(made_of([held_out], pools, "fit")[0]) == 0


def test_known_rows_have_one_template(inside: list[Collection]) -> None:
    pools = pooled(inside)
    known = pools.known()
    several = [found for pool in pools.by_split.values() for found in of(pool)]
    single = [f for f in several if len({pools.templates[key] for key in f}) == 1]
    assert len(known) == len(single) < len(several)
    assert known.units == tuple(pools.templates[found[0]] for found in of(known))
