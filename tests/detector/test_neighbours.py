"""Neighbours: distances in the whitened space, and who keeps where a question lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from detector import artifact as artifacts
from detector.artifact import Artifact
from detector.backend import Ask
from detector.detector import Detector
from detector.errors import CalibrationError
from detector.judge import Judge, Judgement
from detector.manifest import Manifest
from detector.neighbour_names import KindName, NeighbourName, NeighbourNames
from detector.neighbours import Neighbours, Space, look_neighbours, usual_distances
from detector.planes import Planes
from detector.trajectory import PROMPT, Look
from tests.detector.test_artifact import artifact  # noqa: F401 (a fixture)
from tests.detector.test_detector import N_PLANES, D, fitted, planes, trajectories

RANK = D


def naive(rows: Tensor, one: Tensor, other: Tensor, layers: list[int]) -> float:
    """The distance of two trajectories: Mahalanobis', averaged over layers, each coordinate's
    share of which is 1.
    """
    squares = 0.0
    for layer in layers:
        plane = rows[:, layer].double()
        centred = plane - plane.mean(0)
        sample = centred.T @ centred / len(plane)
        mean = sample.trace() / D
        dispersion = (sample - mean * torch.eye(D)).square().sum() / D
        noise = sum(
            ((row[:, None] @ row[None] - sample).square().sum() for row in centred),
            start=torch.zeros((), dtype=torch.float64),
        )
        s = min(float(noise / len(plane) ** 2 / D / dispersion), 1.0)
        covariance = (1 - s) * sample + s * mean * torch.eye(D)
        away = (one - other)[layer].double()
        squares += float(away @ torch.linalg.solve(covariance, away))
    return float((squares / len(layers) / D) ** 0.5)


@pytest.mark.parametrize("with_background", [False, True])
def test_distances_are_mahalanobis_of_two_questions(with_background: bool) -> None:
    """At full rank, whatever the directions: half precision of the basis aside."""
    rows, new = trajectories(400, 0), trajectories(6, 1)
    space = Space.fit(Planes.of(rows), planes(50, 2) if with_background else None, RANK)
    assert space.layers.tolist() == [4, 7, N_PLANES - 2]
    places = space.place(new)
    for one in range(6):
        for other in range(one):
            found = float((places[one] - places[other]).norm())
            expected = naive(rows, new[one], new[other], space.layers.tolist())
            assert found == pytest.approx(expected, rel=2e-3)


def test_questions_in_scope_lie_at_one_from_the_middle() -> None:
    space = Space.fit(planes(4000, 0), None, RANK)
    # 4,000 questions of 24 coordinates: the mean square's deviation is 0.005, and 0.03 six of it.
    assert float(space.place(trajectories(4000, 1)).square().sum(1).mean()) == pytest.approx(
        1, abs=0.03
    )


def test_a_layer_that_never_varies_adds_nothing() -> None:
    rows = trajectories(50, 0)
    rows[:, 4] = 3.0
    space = Space.fit(Planes.of(rows), None, 4)
    moved = trajectories(2, 1)
    moved[1] = moved[0]
    moved[1, 4] += 100
    places = space.place(moved)
    assert bool(places.isfinite().all())
    assert torch.equal(places[0], places[1])


def test_responses_that_ended_before_the_look_are_left_out() -> None:
    rows = trajectories(60, 0)
    space = Space.fit(Planes.of(rows), None, 4)
    ended = torch.cat([rows, torch.full_like(rows[:5], torch.nan)])
    same = Space.fit(Planes.of(ended), None, 4)
    assert torch.equal(same.mean, space.mean)
    assert bool(same.places(Planes.of(ended))[60:].isnan().all())
    with pytest.raises(CalibrationError, match="2 questions of the fit split"):
        Space.fit(Planes.of(ended[58:]), None, 4)


def test_usual_distances_are_of_the_nearest_others() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    # 1, 1, 2 and 4.
    assert usual_distances(line).tolist() == pytest.approx([1, 1, 1.5, 2.5, 3.85])
    assert usual_distances(line[:1]).tolist() == [0] * 5
    with pytest.raises(CalibrationError, match="too far"):
        look_neighbours(Space.fit(planes(9, 0), None, 2), line * 1e5, line)


def with_neighbours(detector: Detector, looks: tuple[Look, ...] = (PROMPT, 4)) -> Detector:
    """With ten questions and a kind at each look."""
    kept = {}
    for seed, look in enumerate(looks):
        space = Space.fit(planes(200, seed), planes(50, 4 + seed), rank=5)
        places = space.places(planes(10, 20 + seed))
        kept[look] = look_neighbours(space, places, space.places(planes(3, 30)).mean(0)[None] + 9)
    return replace(detector, neighbours=Neighbours(kept))


def named(manifest: Manifest) -> Manifest:
    names = NeighbourNames(
        questions=tuple(NeighbourName(id=f"{n:016x}", file="walks") for n in range(10)),
        kinds=(KindName(name="leaps", n_questions=3),),
    )
    return manifest.model_copy(update={"neighbours": names})


def test_neighbours_are_stored_and_change_nothing_else(
    artifact: Artifact,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.safetensors"
    artifact.save(path)
    plain = load_tensors(path.read_bytes())
    saved = Artifact.of(with_neighbours(artifact.detector), named(artifact.manifest))
    saved.save(path)
    loaded = artifacts.load(path)
    assert (loaded.id, loaded.manifest) == (saved.id, saved.manifest)
    assert loaded.id != artifact.id
    stored = load_tensors(path.read_bytes())
    assert all(torch.equal(stored[name], tensor) for name, tensor in plain.items())
    assert {name.partition(".")[0] for name in set(stored) - set(plain)} == {"neighbours"}
    new = trajectories(5, seed=9)
    assert loaded.detector.score(PROMPT, new) == artifact.detector.score(PROMPT, new)
    assert loaded.detector.neighbours is not None
    assert saved.detector.neighbours is not None
    for look in (PROMPT, 4):
        found = loaded.detector.neighbours.place(look, new)
        before = saved.detector.neighbours.place(look, new)
        assert found is not None
        assert before is not None
        assert torch.equal(found, before)
    moved = loaded.detector.to(torch.device("cpu")).at(0.1, "marginal").neighbours
    assert moved is not None
    assert set(moved.looks) == {PROMPT, 4}


# What the judge keeps.


class Counting(Neighbours):
    """How many trajectories were placed, in all."""

    n = 0

    def place(self, look: Look, trajectories: Tensor) -> Tensor | None:
        type(self).n += len(trajectories)
        return super().place(look, trajectories)


@pytest.fixture
def counted() -> Detector:
    detector = with_neighbours(fitted(), looks=(PROMPT,))
    assert detector.neighbours is not None
    Counting.n = 0
    return replace(detector, neighbours=Counting(detector.neighbours.looks))


def test_only_what_is_flagged_or_asked_about_is_placed(counted: Detector) -> None:
    judge, asks = Judge(counted), [Ask((1,)) for _ in range(3)]
    judgements = [Judgement(), Judgement(explains=True), Judgement()]
    for ask, judgement in zip(asks, judgements, strict=True):
        judge.watch(ask, judgement)
    rows = trajectories(3, 40)
    rows[2] += 50
    judge.observe(PROMPT, asks, rows)
    assert [each.verdict and each.verdict.is_ood for each in judgements] == [False, False, True]
    assert [set(each.places) for each in judgements] == [set(), {PROMPT}, {PROMPT}]
    assert Counting.n == 2
    assert counted.neighbours is not None
    expected = counted.neighbours.place(PROMPT, rows)
    assert expected is not None
    assert torch.allclose(judgements[2].places[PROMPT], expected[2])
    # A look without neighbours has none to be placed among.
    judge.observe(4, asks, rows)
    assert [set(each.places) for each in judgements] == [set(), {PROMPT}, {PROMPT}]


def test_a_batch_without_a_flag_costs_nothing(counted: Detector) -> None:
    judge = Judge(counted)
    judge.observe(PROMPT, [Ask((1,)) for _ in range(4)], trajectories(4, 40))
    assert Counting.n == 0


def test_choices_of_one_prompt_share_its_place(counted: Detector) -> None:
    judge, first = Judge(counted), Ask((1,))
    mine, theirs = Judgement(), Judgement()
    judge.watch(first, mine)
    judge.watch(Ask((1,), first=first), theirs)
    judge.observe(PROMPT, [first], trajectories(1, 40) + 50)
    assert torch.equal(mine.places[PROMPT], theirs.places[PROMPT])


def test_what_placing_raises_leaves_the_verdict_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Raising(Neighbours):
        def place(self, look: Look, trajectories: Tensor) -> Tensor | None:
            raise ArithmeticError(f"secret {trajectories}")

    judge, ask, judgement = Judge(replace(fitted(), neighbours=Raising({}))), Ask((1,)), Judgement()
    judge.watch(ask, judgement)
    assert judge.observe(PROMPT, [ask], trajectories(1, 40) + 50) == [False]
    assert judgement.verdict is not None
    assert judgement.verdict.is_ood
    assert not judgement.places
    assert "placing failed at look prompt: ArithmeticError" in caplog.text
    assert "tensor(" not in caplog.text
