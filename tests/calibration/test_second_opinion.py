"""Second opinions calibrated: on what stage one flags, with one half held out and told of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration import second_opinion
from calibration.generate import write_questions
from calibration.questions import Question, read_questions
from calibration.reporting.second_opinion import auroc_of, joint_rates, n_held, tables
from calibration.second_opinion import Asker, Found, Opined, find, halves, record
from detector import artifact as artifacts
from detector.artifact import Artifact
from detector.conformal import Calibration, p_values
from detector.engine.model.checkpoint import Checkpoint
from detector.errors import CalibrationError
from detector.opinion_record import OPINION_SCORES, OpinionRecord
from tests.opined import ASKING, with_opinions
from tests.tiny import tiny_checkpoint
from trajguard import main

ALPHA = 0.3
"""Enough are flagged at it, of few questions."""


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "others.jsonl"
    write_questions(path, n=160, seed=7)
    return path


@pytest.fixture(scope="module")
def ood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ood") / "ood.jsonl"
    rows = [{"question": f"{letter * 9} {n}"} for n, letter in enumerate("abcdefghijklm")]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def saved(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "guard.safetensors"
    artifact.save(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny = tiny_checkpoint()
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


def test_the_command_writes_an_artifact_that_is_served_and_reported(
    saved: Path,
    questions: Path,
    ood: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, keep = tmp_path / "with.safetensors", tmp_path / "kept.jsonl"
    options = [
        *("--model", str(model), "--dtype", "float32", "--alpha", str(ALPHA)),
        *("--n-answers", "2", "--max-tokens", "3", "--keep", str(keep), "--most", "25"),
    ]
    asked = ["second-opinion", str(saved), str(questions), "--out", str(out), *options]
    assert main([*asked, "--ood", str(ood)]) == 0
    said = capsys.readouterr().out
    made = artifacts.load(out)
    kept = made.manifest.second_opinion
    assert kept is not None
    assert kept.population == "flagged"
    assert second_opinion.FEWEST <= len(kept.calibration) <= 25
    assert kept.n_holdout == len(halves(read_questions(questions)[0])[1])
    assert 0 < len(kept.holdout) < kept.n_holdout
    assert (kept.alpha, kept.dtype, kept.asking.n_answers) == (ALPHA, "float32", 2)
    assert list(kept.sources) == ["others"]
    for name in OPINION_SCORES:
        assert list(kept.calibration.of(name)) == sorted(kept.calibration.of(name))
    before = artifacts.load(saved)
    assert made.detector.threshold == before.detector.threshold
    assert made.id != before.id
    assert "| uncertainty |" in said
    assert "AUROC" in said
    assert "tokens and" in said
    # A second run asks nothing again, and comes to the same artifact.
    rows = keep.read_text()
    assert main(asked) == 0
    assert artifacts.load(out).id == made.id
    assert keep.read_text() == rows
    assert "both refuse" in capsys.readouterr().out


def test_what_is_flagged_is_what_a_service_flags(artifact: Artifact, questions: Path) -> None:
    read, _ = read_questions(questions)
    with Asker(tiny_checkpoint(), artifact, ASKING, ALPHA) as asker:
        flagged, n = asker.flagged(read, "in scope")
        fewer, n_until = asker.flagged(read, "again", most=1)
    assert n == len(read)
    assert 0.1 * n < len(flagged) < 0.6 * n
    assert n_until < n
    assert fewer[0] in flagged
    with Asker(tiny_checkpoint(), artifact, ASKING, 0.05) as asker:
        strict, _ = asker.flagged(read, "in scope")
    assert {each.key for each in strict} < {each.key for each in flagged}


def test_halves_are_distinct_questions_and_stay_so() -> None:
    questions = [
        Question(({"role": "user", "content": str(n)},), key=f"{n * 2654435761 % 2**64:016x}")
        for n in range(200)
    ]
    one, other = halves(questions + questions[:50])
    assert {each.key for each in one}.isdisjoint(each.key for each in other)
    assert len(one) + len(other) == 200
    assert 70 < len(one) < 130
    assert halves(questions[::-1]) == (one, other)


def test_too_few_flagged_are_told_and_all_stand_in(artifact: Artifact, questions: Path) -> None:
    read = read_questions(questions)[0][:60]
    with Asker(tiny_checkpoint(), artifact, ASKING, 0.05) as asker:
        with pytest.raises(CalibrationError, match="19 are needed"):
            find(asker, read, [])
        found = find(asker, read, [], everything=True)
    assert len(found.calibration) == found.n_calibration >= 19
    made = record(tiny_checkpoint(), found, ASKING, 0.05, {}, everything=True)
    assert made.population == "all"


def opined(score: float) -> Opined:
    return Opined(str(score), score, -score, abs(score), tokens=100, seconds=0.5)


def found_with(n: int) -> tuple[OpinionRecord, Found]:
    calibration = [opined(float(score)) for score in range(n)]
    holdout = [opined(score + 0.5) for score in range(0, n, 2)]
    ood = [opined(score + n - 5.0) for score in range(10)]
    found = Found(calibration, holdout, ood, 400, 400, 20, 12)
    return record(tiny_checkpoint(), found, ASKING, 0.05, {}, everything=False), found


def test_what_is_held_is_by_conformal_p_values(checkpoint: Checkpoint) -> None:
    made, found = found_with(39)
    for name in OPINION_SCORES:
        known = Calibration(torch.tensor(made.calibration.of(name), dtype=torch.float64))
        for beta in (0.05, 0.3, 0.8):
            scores = made.holdout.of(name)
            held = [score for score in scores if known.p_value(score) <= beta]
            assert n_held(made, scores, name, beta) == len(held)
    # In scope no more than beta of those flagged, but for chance: here evenly spread.
    assert n_held(made, made.holdout.of("uncertainty"), "uncertainty", 0.5) == 10
    said = joint_rates(made)
    assert "uncertainty at 0.5: both refuse 10 of 400, 2.5% (1.2% to 4.5%); 10 of 20 freed" in said
    written = tables(made, found)
    assert "| 0.5 | 10 of 20, 50.0% (27.2% to 72.8%) |" in written
    assert "100 tokens and 500 ms" in written
    assert "5.0 tokens and 25.0 ms a question of all traffic" in written


def test_calibrated_on_what_is_flagged_beta_holds_and_on_all_it_need_not() -> None:
    """Simulated, where both stages' scores go together (correlation 0.8): of new flagged questions
    in scope a share of beta is held on average; by the scores of all, most are.
    """
    draw, beta, n = np.random.default_rng(0), 0.2, 59

    def second_scores(n_flagged: int) -> tuple[np.ndarray, np.ndarray]:
        first = draw.standard_normal(40 * n_flagged)
        second = 0.8 * first + 0.6 * draw.standard_normal(len(first))
        return second[first > 1.645][:n_flagged], second[:n_flagged]

    held: dict[str, list[float]] = {"flagged": [], "all": []}
    for _ in range(400):
        (flagged, everything), (new, _) = second_scores(n), second_scores(20)
        for name, known in (("flagged", flagged), ("all", everything)):
            p = p_values(torch.tensor(new), torch.tensor(np.sort(known)))
            held[name].append(float((p <= beta).double().mean()))
    # Of 400 calibrations the mean's standard error is 0.006: one calibration's rate varies as
    # Beta(12, 48) does, by 0.05, and 20 questions' share by 0.09 more.
    assert abs(np.mean(held["flagged"]) - beta) < 0.02
    assert np.mean(held["all"]) > 2 * beta


def test_auroc_has_an_interval_and_a_side_may_be_empty() -> None:
    assert auroc_of([0.0, 1.0, 2.0], [3.0, 4.0]) == "1.00 (1.00 to 1.00)"
    low_high = auroc_of([0.0, 1.0, 2.0, 5.0], [0.5, 1.5, 6.0])
    assert low_high.startswith("0.58 (")
    assert auroc_of([], [1.0]) == "-"


def test_report_tells_joint_rates(
    artifact: Artifact, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = with_opinions(artifact, 0.0)
    assert made.manifest.second_opinion is not None
    said = joint_rates(made.manifest.second_opinion)
    assert "of 400 others in scope stage one flags 39" in said
    assert replace(made, id="other").manifest.second_opinion is made.manifest.second_opinion
