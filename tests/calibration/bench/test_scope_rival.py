"""The rival, with an embedding that counts letters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calibration.bench.scope.rival import PLAIN, VARIED, asked, neighbour_distances, rivals
from calibration.generate import generate
from calibration.questions import Question, key_of
from calibration.templates import splits_and_templates
from detector.errors import TooFewQuestionsError
from tests.calibration.bench.around_scope import read_around_scope, write


def test_distance_to_the_kth_neighbour_as_by_hand() -> None:
    draw = torch.Generator().manual_seed(0)
    points, reference = (
        torch.nn.functional.normalize(torch.randn(n, 8, generator=draw), dim=1) for n in (7, 30)
    )
    naive = torch.cdist(points.double(), reference.double()).sort(dim=1).values[:, 9]
    # Float32 products of unit vectors are exact to 1e-6, and distances here are near 1.
    torch.testing.assert_close(neighbour_distances(points, reference), naive, atol=1e-5, rtol=0)
    assert float(neighbour_distances(reference[:1], reference[:1])) == pytest.approx(0, abs=1e-3)


def _counted(_: str, texts: Sequence[str]) -> Tensor:
    """An embedding by letters."""
    letters = "abcdefghijklmnopqrstuvwxyz$0123456789"
    counts = torch.tensor([[text.lower().count(letter) for letter in letters] for text in texts])
    return torch.nn.functional.normalize(counts.float(), dim=1)


def test_rivals_keep_alpha_and_find_letters(tmp_path: Path) -> None:
    sets = read_around_scope(tmp_path)
    fit = write(tmp_path, "fit", [text for text, _ in generate(600, seed=3)])
    found = rivals(_counted, [fit], sets, [0.05, 0.0001])
    assert [design.name for design in found] == [PLAIN, VARIED]
    texts = {key_of([{"content": text}]): text for text, _ in generate(600, seed=3)}
    splits, _ = splits_and_templates(texts)
    n_conformal = sum(split == "conformal" for split in splits.values())
    assert [design.n_conformal for design in found] == [n_conformal, 2 * n_conformal]
    for design in found:
        assert list(design.refused) == ["0.05"]  # the other needs 9,999 questions
        assert design.share("0.05", "B_letters").rate == 1
        # Binomial of about 120 with mean 5 %: below 15 % but for one in 10^5.
        assert design.holdout["0.05"].rate < 0.15
    with pytest.raises(TooFewQuestionsError):
        rivals(_counted, [fit], sets, [0.0001])


def _asking(*turns: str) -> Question:
    messages = tuple({"role": "user", "content": turn} for turn in turns)
    return Question(messages, key_of(messages))


def test_the_rival_reads_every_turn_of_the_user() -> None:
    question = _asking("One?", "Two?")
    told = (question.messages[0], {"role": "assistant", "content": "1"}, question.messages[1])
    assert asked(Question(told, question.key)) == "One?\n\nTwo?"
