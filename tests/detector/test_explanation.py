"""Explanations: shares that add up, and the questions that are really the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from torch import Tensor

from detector import explanation
from detector.artifact import Artifact
from detector.detector import Detector
from detector.explanation import explain, shares
from detector.fitted_look import Part
from detector.manifest import Manifest
from detector.scores import SCORES
from detector.trajectory import PROMPT, Look
from detector.verdict import Verdict
from tests.detector.test_artifact import artifact  # noqa: F401 (a fixture)
from tests.detector.test_detector import CLUSTERS, N_PLANES, fitted, planes, trajectories
from tests.detector.test_neighbours import named, with_neighbours

ADDITIVE = ["contrast", "mahalanobis", "mahalanobis-last", "tv-paper", "tv-reference"]
N_LAYERS = N_PLANES - 1


def scored_with(score: str, order: int = 0, *, banded: bool = True) -> Detector:
    detector = Detector.fit(
        {PROMPT: planes(200, 0)},
        {PROMPT: planes(200, 1)},
        parts=[Part(PROMPT, score, order)],
        background={PROMPT: planes(50, 2)},
        clusters={PROMPT: CLUSTERS},
        alpha=0.1,
    )
    return detector.with_bands({PROMPT: planes(200, 1)}) if banded else detector


@pytest.mark.parametrize("banded", [True, False])
@pytest.mark.parametrize("score", ADDITIVE)
def test_shares_add_up_to_the_score(score: str, banded: bool) -> None:
    """In whichever cluster a question was standardised."""
    detector = scored_with(score, banded=banded)
    (look,) = detector.looks
    seen = set()
    for (row,), trajectory in zip(
        detector.score(PROMPT, trajectories(30, 7)), trajectories(30, 7), strict=True
    ):
        cluster = int(look.clusters_of(trajectory[None])[0])
        seen.add(cluster)
        found = shares(look, row, N_LAYERS)
        assert sum(each.share for each in found) == pytest.approx(row.score, abs=1e-9)
        assert [each.share for each in found] == sorted((e.share for e in found), reverse=True)
        # As it is defined: the score is what all terms have over the location, by the scale.
        scale, location = float(look.scale[cluster]), float(look.location[cluster])
        terms = dict(enumerate(row.distances))
        if score.startswith("mahalanobis"):
            terms = {n: value / len(terms) for n, value in terms.items()}
        if score.startswith("tv"):
            steps = len(terms) - 1
            terms = {n + 1: abs(terms[n + 1] - terms[n]) / steps for n in range(steps)}
        layers = look.score.layers(N_LAYERS)
        usual = dict.fromkeys(terms, 0.0)
        if banded and not score.startswith("tv"):
            by = len(terms) if score.startswith("mahalanobis") else 1
            assert look.band is not None
            usual = {n: float(look.band[2, n]) / by for n in terms}
        rest = (location - sum(usual.values())) / len(terms)
        expected = {layers[n]: (terms[n] - usual[n] - rest) / scale for n in terms}
        assert {e.layer: e.share for e in found} == pytest.approx(expected, abs=1e-4)
    assert seen == {0, 1}


def test_layers_are_told_with_what_is_usual_and_what_is_beyond() -> None:
    detector = scored_with("mahalanobis")
    (look,) = detector.looks
    assert look.band is not None
    far = trajectories(1, 7)
    far[:, 6] += 40
    ((row,),) = detector.score(PROMPT, far)
    found = {each.layer: each for each in shares(look, row, N_LAYERS)}
    assert set(found) == set(range(N_PLANES))
    assert found[6].beyond
    assert found[6].measured == row.distances[6]
    assert found[6].usual == pytest.approx(float(look.band[2, 6]))
    assert found[6].share == max(each.share for each in found.values()) > 0
    assert [n for n, each in found.items() if each.beyond] == [
        n for n in found if row.distances[n] > look.band[4, n]
    ]


@pytest.mark.parametrize("score", sorted(set(SCORES) - set(ADDITIVE)))
def test_a_score_that_is_no_sum_has_no_shares(score: str) -> None:
    detector = scored_with(score)
    ((row,),) = detector.score(PROMPT, trajectories(1, 7))
    assert shares(detector.looks[0], row, N_LAYERS) == ()


def test_every_score_is_known_to_be_a_sum_or_not() -> None:
    sums = {name for name, score in SCORES.items() if score.summarise in explanation._TERMS}
    assert sums == set(ADDITIVE)


# The nearest.


@pytest.fixture(scope="module")
def detector() -> Detector:
    return with_neighbours(fitted())


@pytest.fixture(scope="module")
def manifest(artifact: Artifact) -> Manifest:  # noqa: F811
    return named(artifact.manifest)


def verdict_of(
    detector: Detector, trajectory: Tensor, *, at: Sequence[Look] = (PROMPT,)
) -> tuple[Verdict, dict[Look, Tensor]]:
    """Of one that is the same at each look, and where that lies."""
    looks = [score for look in at for score in detector.score(look, trajectory[None])[0]]
    places = {}
    for look in at:
        assert detector.neighbours is not None
        found = detector.neighbours.place(look, trajectory[None])
        assert found is not None
        places[look] = found[0]
    return detector.judge(looks), places


def test_a_question_that_is_kept_lies_nearest_to_itself(
    detector: Detector, manifest: Manifest
) -> None:
    kept = trajectories(10, 20)
    for row in range(10):
        said = explain(detector, manifest, *verdict_of(detector, kept[row]))
        assert said.note is None
        assert said.neighbours[0].id == f"{row:016x}"
        # But for half precision.
        assert said.neighbours[0].distance < 2e-3
        distances = [each.distance for each in said.neighbours]
        assert distances == sorted(distances)
        assert len(distances) == explanation.N_NEIGHBOURS
        assert said.kind is not None
        assert said.kind.name == "leaps"


def test_distances_are_those_of_the_places(detector: Detector, manifest: Manifest) -> None:
    new = trajectories(1, 50)[0]
    verdict, places = verdict_of(detector, new)
    said = explain(detector, manifest, verdict, places, n_neighbours=10)
    assert detector.neighbours is not None
    kept = detector.neighbours.looks[PROMPT]
    naive = {
        f"{row:016x}": float((place.float() - places[PROMPT]).square().sum().sqrt())
        for row, place in enumerate(kept.questions)
    }
    assert {each.id: each.distance for each in said.neighbours} == pytest.approx(naive, abs=1e-5)
    assert said.usual == (float(kept.usual[2]), float(kept.usual[4]))
    assert said.kind is not None
    expected = (kept.kinds[0].float() - places[PROMPT]).norm()
    assert said.kind.distance == pytest.approx(float(expected), abs=1e-5)


def test_it_is_of_the_look_that_decided(detector: Detector, manifest: Manifest) -> None:
    new = trajectories(1, 50)[0]
    verdict, places = verdict_of(detector, new, at=(PROMPT, 4))
    highest = max(verdict.looks, key=lambda look: look.score)
    assert explain(detector, manifest, verdict, places).look == highest.look
    assert explain(detector, manifest, verdict, places).score == highest.score
    # One that does not count decides nothing, unless none counts.
    others = tuple(
        replace(look, excluded="not calibrated") if look is highest else look
        for look in verdict.looks
    )
    assert explain(detector, manifest, replace(verdict, looks=others), places).look != highest.look
    none = tuple(replace(look, excluded="not calibrated") for look in verdict.looks)
    assert explain(detector, manifest, replace(verdict, looks=none), places).look == highest.look


def test_what_cannot_be_said_is_noted(detector: Detector, manifest: Manifest) -> None:
    verdict, places = verdict_of(detector, trajectories(1, 50)[0])
    bare = replace(detector, neighbours=None)
    for judging, where, note in (
        (bare, places, explanation.NO_NEIGHBOURS),
        (detector, {}, explanation.NOT_KEPT),
    ):
        said = explain(judging, manifest, verdict, where)
        assert (said.note, said.neighbours, said.usual, said.kind) == (note, (), None, None)
        assert said.shares
    failed = tuple(replace(look, score=float("nan")) for look in verdict.looks)
    said = explain(detector, manifest, replace(verdict, looks=failed), places)
    assert (said.look, said.shares, said.note) == (None, (), explanation.NO_LOOK)
    assert manifest.neighbours is not None
    names = manifest.neighbours.model_copy(update={"kinds": ()})
    without = manifest.model_copy(update={"neighbours": names})
    assert explain(detector, without, verdict, places).kind is None
