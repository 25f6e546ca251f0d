"""What a report says beside the holdout as a whole: against counts by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from calibration.__main__ import main
from calibration.collection import read_collections
from calibration.confounds import n_words
from calibration.fit import FitOptions, fit
from calibration.pooling import Pool, pools_of
from calibration.reporting.false_alarms import FalseAlarms
from calibration.reporting.recall import ood_rows
from calibration.reporting.report import ReportOptions, report
from calibration.reporting.result import Report
from calibration.reporting.scoring import GUARD, NO_LOOK, Scored, auroc, fpr95
from detector.artifact import Artifact
from detector.conformal import proportion_interval
from detector.errors import CalibrationError
from detector.trajectory import PROMPT
from tests.calibration.conftest import Collected


@pytest.fixture(scope="module")
def artifact(collected: Collected) -> Artifact:
    options = FitOptions(rank=4, alpha=0.1)
    return fit(collected.inside, "tests", options, [collected.background])


@pytest.fixture(scope="module")
def measured(artifact: Artifact, collected: Collected) -> Report:
    options = ReportOptions(
        ood=(collected.other,),
        unseen_variations=(collected.held_out,),
        unseen_templates=True,
        contrast=(collected.background,),
        rank=4,
    )
    return report(artifact, collected.inside, options)


def test_rates_count_questions_and_templates() -> None:
    flagged = np.array([True, True, False, True, False, False])
    found = FalseAlarms.of("x", flagged, [1, 1, 1, 5, 9, 9])
    assert (found.n_questions, found.n_flagged, found.n_units) == (6, 3, 3)
    assert found.rate == 0.5
    assert found.rate_by_unit == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert (found.low, found.high) == pytest.approx(proportion_interval(5 / 3, 3))


def test_holdout_in_total_and_by_what_questions_are(
    measured: Report, artifact: Artifact, collected: Collected
) -> None:
    pool = pools_of(artifact.manifest, read_collections(collected.inside))["holdout"]
    flagged = artifact.detector.maxima(pool.at([PROMPT])) > artifact.detector.threshold
    assert measured.holdout.n_flagged == int(flagged.sum())
    assert measured.holdout.n_questions == len(pool)
    assert measured.holdout.n_units == pool.n_units < len(pool)
    (source,) = measured.tables["source"]
    assert (source.name, source.n_questions) == ("typed", len(pool))
    counts: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    for fields, flag in zip(pool.fields, flagged.tolist(), strict=True):
        for name in fields["variation"].split() if "of" in fields else ["as typed"]:
            counts[name] += 1
            alarms[name] += flag
    assert {row.name: row.n_questions for row in measured.tables["variation"]} == counts
    flags = {row.name: row.n_flagged for row in measured.tables["variation"]}
    assert flags == {name: alarms[name] for name in counts}
    assert counts["as typed"] > 10
    thirds = measured.tables["length"]
    assert sum(row.n_questions for row in thirds) == len(pool)
    assert len(thirds) == 3
    words = sorted(map(n_words, pool.texts))
    shortest = sum(n < words[len(pool) // 3] for n in words)
    assert shortest in {row.n_questions for row in thirds}


def test_ways_to_type_that_were_never_calibrated(measured: Report) -> None:
    total, *kinds = measured.unseen_variations
    assert total.name == "all"
    assert total.n_questions == sum(row.n_questions for row in kinds)


def test_other_alphas_are_kept_or_said_not_to_be(measured: Report, artifact: Artifact) -> None:
    n_templates = artifact.manifest.n_templates
    assert 19 <= n_templates < 99
    five, one, tenth = measured.alphas
    assert five.alpha == 0.05
    assert five.false_alarms is not None
    assert five.false_alarms.n_flagged <= measured.holdout.n_flagged
    assert five.recall.keys() == {"words"}
    assert (one.false_alarms, tenth.false_alarms) == (None, None)
    assert one.recall == {"words": None}


def test_power_on_kinds_left_out(measured: Report) -> None:
    power = measured.power
    assert power is not None
    assert power.total.n_questions == 160
    for rows in (power.places, power.kinds):
        assert sum(row.n_questions for row in rows) == 160
        recalled = sum(row.recall * row.n_questions for row in rows)
        assert recalled == pytest.approx(power.total.recall * 160)
    assert {"background-turn"} < {row.name for row in power.places}


def test_new_templates(measured: Report) -> None:
    found = measured.new_templates
    assert found is not None
    assert 140 < found.n_templates <= 150
    assert 0 <= found.low <= found.rate <= found.high <= 1


def test_it_is_written_as_text_and_as_json(
    artifact: Artifact,
    collected: Collected,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    measured: Report,
) -> None:
    artifact.save(tmp_path / "a")
    inside = [str(folder) for folder in collected.inside]
    command = ["report", str(tmp_path / "a"), *inside, "--ood", str(collected.other)]
    assert main([*command, "--json", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["holdout"]["n_flagged"] == measured.holdout.n_flagged
    assert written["new_templates"] is written["power"] is None
    for heading in ("variation ", "length ", "OOD file ", "alpha "):
        assert f"\n{heading}" in shown
    assert "never calibrated" not in shown
    assert "0.01   too few templates" in shown
    assert "collect next: about" in shown
    whole = str(measured)
    for said in ("\nnever calibrated ", "power on kinds", "\nfalse alarms on questions of new"):
        assert said in whole


def test_other_collections_than_it_was_fitted_to(artifact: Artifact, collected: Collected) -> None:
    with pytest.raises(CalibrationError, match="all of them and no other"):
        report(artifact, collected.inside[:2], ReportOptions())


def test_what_refits_need(artifact: Artifact, collected: Collected) -> None:
    with pytest.raises(CalibrationError, match="as --contrast, or leave --unseen-templates out"):
        report(artifact, collected.inside, ReportOptions(unseen_templates=True))
    with pytest.raises(CalibrationError, match="are of one kind: name several"):
        report(artifact, collected.inside, ReportOptions(contrast=(collected.other,), rank=4))


def test_areas_by_hand() -> None:
    inside, outside = np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.5, 4.0])
    assert auroc(inside, outside) == 7 / 8
    assert fpr95(inside, outside) == 1 / 4


def test_a_look_is_measured_by_those_whose_responses_got_there(artifact: Artifact) -> None:
    """Who ended before it scores lowest of all, and would pass for one that it found in scope."""

    def scored(guard: list[float], part: list[float]) -> Scored:
        texts = [f"What is {n} and {n + 1}?" for n in range(len(guard))]
        pool = cast("Pool", SimpleNamespace(texts=texts))
        scores = {name: np.array(each) for name, each in {GUARD: guard, "64:x": part}.items()}
        return Scored(pool, scores, [None] * len(guard))

    inside = scored([0.0, 1.0, 2.0], [0.0, 1.0, NO_LOOK])
    outside = scored([5.0, 1.5, NO_LOOK, 9.0], [2.0, 0.5, NO_LOOK, NO_LOOK])
    guard, part = ood_rows(artifact.detector, inside, ["What is 1 + 2?"] * 3, outside, "x")
    assert (guard.score, guard.n_questions, guard.auroc) == (GUARD, 4, 8 / 12)
    assert (part.score, part.n_questions, part.auroc) == ("64:x", 2, 3 / 4)
    nobody = scored([1.0], [NO_LOOK])
    assert [r.score for r in ood_rows(artifact.detector, inside, ["1 + 2"] * 3, nobody, "x")] == [
        GUARD
    ]
