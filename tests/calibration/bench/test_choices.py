"""The instrument of choices: both ways give every response, and sharing prefills once."""

from __future__ import annotations

import pytest

from calibration.bench.speed import choices
from calibration.bench.speed.__main__ import main
from detector.engine.prefill import Row
from detector.engine.slot_runner import SlotRunner
from tests.tiny import tiny_checkpoint


def test_both_ways_are_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choices, "load_checkpoint", lambda *_: tiny_checkpoint())
    monkeypatch.setattr(choices, "_LAST_ID", 256)
    prefilled: list[int] = []
    plain = SlotRunner.prefill

    def counted(self: SlotRunner, rows: list[Row], *given: object) -> object:
        prefilled.append(len(rows))
        return plain(self, rows, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SlotRunner, "prefill", counted)
    asked = ["choices", "--n", "4", "--n-prompt", "30", "--n-tokens", "3", "--rounds", "2"]
    assert main(asked) == 0
    # A warm-up and two rounds that share, and two that do not.
    assert sum(prefilled) == 3 + 2 * 4
    said = capsys.readouterr().out
    assert said.startswith("n 4, prompt 30, 3 tokens each: all first tokens after ")
    assert "times as fast" in said
