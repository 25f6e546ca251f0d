"""Figures, bars, tables, pictures and curves of a measurement made up here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.bench.scope.picture import picture
from calibration.bench.scope.result import Design, Measured, SetRecord, Share
from calibration.bench.scope.summary import FEW, MANY, meets, read_bars, summary
from calibration.bench.scope.tables import markdown
from calibration.bench.scope.tradeoff import Traded, chosen, curve, mean_refused, operating_points
from detector.errors import CalibrationError

PNG = b"\x89PNG"


def _measured() -> Measured:
    """Two sets a family, of 4 questions; scores 0 to 3, above 2.5 refused, or above 0.5."""
    plan = {
        "P": ("P_a", "P_b"),
        "A": ("A_a",),
        "B": ("B_a", "B_b"),
        "C": ("C_bare_arithmetic_1", "C_bbh_object_counting", "C_else"),
        "D": ("D_a",),
        "MATH": ("MATH_a", "MATH_b"),
        "dialogues": ("dialogues",),
        "ood-turns": ("ood_last_turns",),
        "fair": tuple(
            f"fair_{s}_{f}" for s in ("inside", "outside") for f in ("plain", "rewritten")
        ),
    }
    kinds = ("why", "why", "next", "next")
    records = tuple(
        SetRecord.model_validate(
            {
                "name": name,
                "family": family,
                "keys": tuple("abcd"),
                "kinds": kinds if family in ("dialogues", "ood-turns") else None,
            }
        )
        for family, names in plan.items()
        for name in names
    )
    high = {"B_a", "D_a", "MATH_a", "MATH_b", "fair_outside_plain"}
    scores: dict[str, tuple[float, ...]] = {
        r.name: (10.0, 11.0, 12.0, 13.0) if r.name in high else (0.0, 1.0, 2.0, 3.0)
        for r in records
    }
    refused = {
        alpha: {name: tuple(v > cut for v in row) for name, row in scores.items()}
        for alpha, cut in (("0.05", 2.5), ("0.5", 0.5))
    }
    holdout = {alpha: Share(refused=1, n=20) for alpha in refused}
    guard = Design(name="guard", n_conformal=99, scores=scores, refused=refused, holdout=holdout)
    coarse = {"0.5": refused["0.5"]}
    rival = Design(name="rival", n_conformal=9, scores=scores, refused=coarse, holdout={})
    return Measured(sets=records, designs=(guard, rival))


def test_figures_of_a_summary() -> None:
    measured = _measured()
    guard, rival = measured.designs
    figures = summary(measured, guard, "0.05")
    assert list(figures) == [*FEW, *MANY]
    assert {name: figure.value for name, figure in figures.items()} == {
        "holdout": 0.05,
        "P mean": 0.25,
        "P worst": 0.25,
        "A mean": 0.25,
        "A worst": 0.25,
        "bare arithmetic": 0.25,
        "object counting": 0.25,
        "dialogues": 0.25,
        "MATH": 1,
        "fair AUROC": 0.5,
        "AUROC as asked": 1,
        "B mean": 0.625,
        "B worst": 0.25,
        "D mean": 1,
        "D worst": 1,
        "OOD last turns": 0.25,
    }
    assert figures["B worst"].worst == "B_b"
    assert figures["MATH"].share == Share(refused=8, n=8)
    assert "holdout" not in summary(measured, rival, "0.5")
    assert measured.alphas == ["0.5", "0.05"]


def test_bars_are_read_and_met(tmp_path: Path) -> None:
    path = tmp_path / "bars.toml"
    path.write_text('["0.05"]\n"P mean" = 0.1\n"MATH" = 0.9\n')
    bars = read_bars(path)
    assert read_bars(None) == {}
    assert meets("P mean", 0.1, 0.1)
    assert not meets("P mean", 0.11, 0.1)
    assert meets("MATH", 0.9, 0.9)
    assert not meets("MATH", 0.89, 0.9)
    table = markdown(_measured(), bars)
    assert "| P mean, refused | ≤ 10.0% | **25.0%** |" in table
    assert "| MATH, refused | ≥ 90.0% | 100.0% (63.1% to 100.0%) |" in table
    assert "| · why | 2 | 0.0% (0.0% to 84.2%) |" in table
    assert picture(_measured(), bars).startswith(PNG)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =", "not TOML"),
        ('"0.05" = 1', "'0.05' is no bar"),
        ('["0.05"]\n"Q mean" = 0.1', "'Q mean' is no bar"),
        ('["0.05"]\n"P mean" = 10', "'P mean' is no bar"),
    ],
)
def test_bad_bars_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bars.toml"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=said):
        read_bars(path)


def test_curves_pass_through_their_operating_points() -> None:
    thresholds = np.array([0.0, 1.0, 2.5])
    shares = mean_refused([[0, 1, 2, 3], [3, 3]], thresholds)
    np.testing.assert_allclose(shares, [(3 / 4 + 1) / 2, (2 / 4 + 1) / 2, (1 / 4 + 1) / 2])
    measured = _measured()
    traded = Traded("guard", measured, measured.designs[0])
    x, y = curve(traded, "B")
    for inside, outside in operating_points(traded, "B").values():
        assert y[np.isclose(x, inside)] == pytest.approx(outside)


def test_designs_are_chosen_by_name_and_told_apart() -> None:
    measured = _measured()
    found = {Path("a/one.json"): measured, Path("b/two.json"): measured}
    labels = [traded.label for traded in chosen(found, ["guard"])]
    assert labels == ["guard, one", "guard, two"]
    with pytest.raises(CalibrationError, match="4 designs are chosen"):
        chosen(found, [])
    with pytest.raises(CalibrationError, match="there are: guard, rival"):
        chosen(found, ["gard"])
