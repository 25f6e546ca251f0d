"""Power and delay of guards that look at responses: by hand, and end to end with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.bench.streaming.__main__ import main
from calibration.bench.streaming.sequential import Delay, Guarded, Stream
from calibration.bench.streaming.sources import CHANGED, READ, draw, looks_around
from calibration.collection import CollectionFolder, Shard
from calibration.generate import generate
from detector.errors import CalibrationError
from detector.trajectory import END, PROMPT, QUESTION, patch
from tests.tiny import tiny_checkpoint

NEVER = -np.inf
_SIZES = ("| 2", "| 4")


def stream(scores: list[list[float]], lengths: list[float]) -> Stream:
    looks = (PROMPT, 4, 8, END)
    return Stream(looks, np.array(scores), np.array(lengths), tuple(range(len(lengths))))


# Flagged at the prompt, after 8 tokens, at the end, and never; the last ended before it was seen.
MIXED = stream(
    [[2, 0, 3, 3], [0, 0, 2, 0], [0, 0, 0, 2], [1, 1, 1, 1], [0, NEVER, NEVER, 0]],
    [10, 16, 9, 12, 3],
)


def test_the_first_look_over_the_threshold_counts() -> None:
    np.testing.assert_array_equal(MIXED.flagged_at(1.0), [0, 8, 9, np.nan, np.nan])
    np.testing.assert_array_equal(MIXED.at([4, 8]).flagged_at(1.0), [8, 8, np.nan, np.nan, np.nan])


def test_delay_by_hand() -> None:
    found = Delay.of(MIXED, 1.0)
    assert (found.n, found.n_before, found.n_flagged) == (5, 0, 3)
    assert found.power == 0.6
    assert found.at_prompt == 0.2
    assert found.tokens == (4.0, 8.0, 8.5)
    assert found.share == pytest.approx((0 + 0.5 + 1) / 3)
    # What is never flagged is seen whole: 12 and 3 tokens.
    assert found.expected == pytest.approx((0 + 8 + 9 + 12 + 3) / 5)
    assert found.saved == pytest.approx(1 - 32 / 50)
    assert Delay.of(MIXED, 9.0).tokens is None
    assert Delay.of(MIXED, 9.0).saved == 0


def test_delay_since_a_change() -> None:
    """Flags until then are of what was as it should be; power and delay are of the others."""
    looks = (PROMPT, 4, 6, 8)
    scores = [[2, 2, 2, 2], [0, 2, 0, 0], [0, 0, 2, 2], [0, 0, 0, 2], [0, 0, 0, 0]]
    found = Delay.of(
        Stream(looks, np.array(scores, dtype=float), np.full(5, 8.0), (0, 1, 2, 3, 4)), 1.0, since=4
    )
    assert (found.n, found.n_before, found.n_flagged) == (5, 2, 2)
    assert found.power == pytest.approx(2 / 3)
    assert found.tokens == (2.5, 3.0, 3.5)
    assert found.expected == pytest.approx((2 + 4 + 4) / 3)
    assert found.saved == pytest.approx(1 - 10 / 12)


def test_the_threshold_is_of_the_maximum_over_the_looks_taken() -> None:
    generator = np.random.default_rng(0)

    def drawn(n: int, first: int, shift: float = 0) -> Stream:
        scores = generator.standard_normal((n, 4)) + shift
        units = tuple(range(first, first + n))
        return Stream((PROMPT, 4, 8, 16), scores, np.full(n, 16.0), units)

    guard = Guarded(drawn(199, 0), drawn(400, 1000), {"other": drawn(50, 0, shift=2)})
    for looks in ([PROMPT], [4, 8, 16], [PROMPT, 4, 8, 16]):
        found = guard.at(looks).measured(0.1)
        assert found is not None
        # 20 of 199 lie above the 20th largest or at it.
        highest = np.sort(guard.conformal.at(looks).scores.max(1))[-20]
        flags = guard.holdout.at(looks).scores.max(1) > highest
        assert found.false_alarms.n_flagged == int(flags.sum())
        # 100 deals of 599: the rate's own spread is 0.02, that of its mean a part of it.
        assert found.drawn_alarms[0] == pytest.approx(0.1, abs=0.03)
        assert found.drawn_alarms[1] < found.drawn_alarms[0] < found.drawn_alarms[2]
        low, high = found.drawn_power["other"][1:]
        # The threshold of all deals varies around that of one.
        assert low - 0.1 <= found.delays["other"].power <= high + 0.1
        shares = [share for _, share in found.power_by["other"]]
        assert shares == sorted(shares)
        assert shares[-1] == found.delays["other"].power
    assert guard.measured(0.001) is None


def test_looks_around_a_change() -> None:
    assert looks_around([QUESTION, PROMPT, 4, 8, 64], 8) == [QUESTION, PROMPT, 4, 8, 12, 16, 64]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, questions in scope, and two files of others."""
    folder = tmp_path_factory.mktemp("streaming")
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(folder / "model")
    checkpoint.tokenizer.save_pretrained(folder / "model")
    rows = [
        # Words that no two share, for each to be of a template of its own.
        {"question": f"{question[::-1]} {number:b}"}
        for number, (question, _) in enumerate(generate(60, seed=0))
    ]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("x", "y"):
        others = [{"question": f"{n} " + name * 30} for n in range(10)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, others)))
    return folder


def test_it_measures_and_resumes(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        *("measure", str(files / "in.jsonl")),
        *("--ood", str(files / "x.jsonl"), str(files / "y.jsonl")),
        *("--model", str(files / "model"), "--n", "55", "--n-ood", "5", "--looks", "prompt,2,4"),
        *("--max-tokens", "6", "--alpha", "0.3", "0.001", "--out", str(tmp_path)),
    ]
    assert main(command) == 0
    written = (tmp_path / "streaming-tables.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in written.splitlines() if line[:3] == "| 0"]
    assert [row[:2] for row in rows] == [
        ["0.3", "prompt"],
        ["0.3", "response"],
        ["0.3", "both"],
        ["0.3", "in scope"],
        ["0.3", "out of scope"],
    ]
    assert (tmp_path / "streaming.png").read_bytes()[:4] == b"\x89PNG"
    own = CollectionFolder(tmp_path / "own" / "in-scope").read()
    responses = dict(zip(own.texts, own.responses, strict=True))
    changed = CollectionFolder(tmp_path / "read" / CHANGED["in scope"]).read()
    assert 0 < len(changed.keys) < 25
    for text, response in zip(changed.texts, changed.responses, strict=True):
        assert response != responses[text]
        assert any(len(response) and response[-1:] == other[-1:] for other in own.responses)

    def refused(self: CollectionFolder, shard: Shard) -> None:
        raise AssertionError("everything is there")

    monkeypatch.setattr(CollectionFolder, "append", refused)
    assert main(command) == 0
    assert (tmp_path / "streaming-tables.md").read_text() == written


def test_patches_are_compared_with_the_running_mean(files: Path, tmp_path: Path) -> None:
    command = [
        *("patches", str(files / "in.jsonl")),
        *("--ood", str(files / "x.jsonl"), str(files / "y.jsonl")),
        *("--model", str(files / "model"), "--n", "55", "--n-ood", "5", "--looks", "prompt,2"),
        *("--max-tokens", "8", "--sizes", "2", "4", "--alpha", "0.3", "--out", str(tmp_path)),
    ]
    assert main(command) == 0
    written = (tmp_path / "patches-mahalanobis-tables.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in written.splitlines() if line[:3] in _SIZES]
    kinds = ["running mean", "patches", "both"]
    # Of false alarms, of two kinds of second halves, and of whole responses.
    assert [row[:2] for row in rows] == [[size, kind] for size in "24" for kind in kinds] * 4
    # Looks at the prompt and 4 patches of 2 tokens; the first of them is a running mean.
    assert [row[2] for row in rows[:6]] == ["5", "5", "8", "3", "3", "4"]
    assert (tmp_path / "patches-mahalanobis.png").read_bytes()[:4] == b"\x89PNG"
    read = CollectionFolder(tmp_path / "patched" / READ).read()
    # A running mean over 4 tokens is the mean of the two patches of 2.
    planes = {look: read.at(look)[0] for look in (2, 4, patch(3, 4))}
    torch.testing.assert_close(planes[4], (planes[2] + planes[patch(3, 4)]) / 2)
    assert main([*command, "--sizes", "3"]) == 2


def test_what_cannot_be_measured(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["measure", str(files / "in.jsonl"), "--ood", str(files / "x.jsonl"), "--out"]
    assert main([*command, str(tmp_path), "--looks", "prompt"]) == 2
    assert "give some of both" in capsys.readouterr().err
    with pytest.raises(CalibrationError, match="hold 10 distinct questions, and 11 are"):
        draw([files / "in.jsonl"], [files / "x.jsonl"], 60, 11, tmp_path)
