"""`trajguard recheck`: who is shown to be better for its own check may send what it says, nobody
else. On a scripted model behind a real guard, and on the tiny one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from app.loading import start
from app.settings import Settings
from calibration.recheck import counted, critic_p_value, refusal_of, told_of
from detector import artifact as artifacts
from detector.artifact import Artifact
from detector.backend import Ask
from detector.engine.model.text import Text
from detector.errors import ArtifactMismatchError
from detector.recheck_record import RecheckCounts, Rechecking
from detector.trajectory import Look
from tests.app.clients import CHAT, client_of, user
from tests.app.recorded import END_TOKEN, RecordedBackend
from tests.app.serving import make_app
from tests.tiny import tiny_checkpoint
from trajguard import main

N = 40


def right_at(n: int) -> bool:
    """Half of the first answers are right."""
    return n % 2 == 0


@dataclass
class Scripted:
    """What is said of question n, "What is n plus 1?": the first answer's being right, what the
    critique calls it, and the second's being right. `read` counts prompts.
    """

    told: Callable[[int], bool]
    right_after: Callable[[int], bool]
    more_ood: Callable[[int], bool] = lambda n: False
    nan: bool = False
    n_answered: int = 0

    def open(self, engine: str, checkpoint: Any, **given: Any) -> RecordedBackend:
        """In place of the engine: the real guard judges the trajectories that these are given."""
        codec, observer = Text(checkpoint.tokenizer), given["observer"]
        means = {
            fitted.look: cast("Any", fitted.score.learned).mean
            for fitted in observer.__self__.detector.looks
        }

        def observe(look: Look, asks: Sequence[Ask], states: Any) -> Any:
            return observer(look, asks, torch.stack(list(states)))

        def trajectory(ask: Ask, look: Look) -> Any:
            text = codec.decode([*ask.prompt, *(ask.response or ())])
            away = bool(ask.response) and self.more_ood(_number_in(text))
            value = math.nan if self.nan and ask.response else 8.0 if away else 0.0
            return means[look] + value * torch.arange(32)

        def respond(ask: Ask) -> Sequence[int]:
            self.n_answered += 1
            return [*codec.encode_response(self._said(codec.decode(ask.prompt))), END_TOKEN]

        return RecordedBackend(
            observe,
            given["looks"],
            cast("Any", trajectory),
            respond,
            n_slots=given["n_slots"],
            max_length=given["max_length"],
            max_queue=given["max_queue"],
            max_queue_tokens=1_000_000,
            clock=lambda: 0.0,
        )

    def _said(self, prompt: str) -> str:
        n = _number_in(prompt)
        if "answer the question again" in prompt:
            return f"It is {n + 1 if self.right_after(n) else n}."
        if "p-value" in prompt:
            return "Correct." if self.told(n) else "Incorrect."
        return f"It is {n + 1 if right_at(n) else n + 2}."


def _number_in(prompt: str) -> int:
    return int(prompt.split("What is ")[1].split()[0])


HELPS = Scripted(told=right_at, right_after=lambda n: True)
SPOILS = Scripted(told=lambda n: False, right_after=lambda n: False)
SWAPS = Scripted(told=lambda n: not right_at(n), right_after=lambda n: not right_at(n))
CHANGES_NOTHING = Scripted(told=right_at, right_after=right_at)
GUESSES = Scripted(told=lambda n: n % 3 == 0, right_after=lambda n: True)
"""Better, and nothing that its critic says has to do with it."""


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"What is {n} plus 1?", "answer": n + 1} for n in range(N)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def tiny_artifact(artifact: Artifact, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    artifact.save(path)
    return path


Ran = Callable[..., int]


@pytest.fixture
def run(tiny_artifact: Path, questions: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    def with_model(model: Scripted | None, out: Path, *options: str) -> int:
        monkeypatch.setattr("calibration.recheck.load_checkpoint", lambda *_: tiny_checkpoint())
        monkeypatch.setattr("calibration.commands.recheck.require_model", lambda _: None)
        if model is not None:
            monkeypatch.setattr("calibration.recheck.open_backend", model.open)
        paths = [str(tiny_artifact), str(questions), "--out", str(out), "--max-tokens", "24"]
        return main(["recheck", *paths, *options])

    return with_model


def test_where_it_helps_it_is_allowed_and_the_command_says_by_how_much(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert run(HELPS, out) == 0
    said = capsys.readouterr().out
    assert "critic: calls 20 of 20 (100.0%, 83.2% to 100.0%) wrong answers wrong" in said
    assert "and 20 of 20 (100.0%, 83.2% to 100.0%) right answers right" in said
    assert "right before: 20 of 40 (50.0%, 33.8% to 66.2%); after: 40 of 40 (100.0%" in said
    assert "20 became right and 0 wrong, a gain of +50.0 points (95 % interval +33.2 to" in said
    assert "recheck is allowed" in said
    record = artifacts.load(out).manifest.recheck
    assert record is not None
    assert (record.allowed, record.why) == (True, "")
    assert record.counts.became_right == 20
    assert record.digest == Rechecking().digest
    assert record.asking.max_tokens == 24
    assert list(record.sources) == ["sums"]
    record.require("float32", record.engine)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (SPOILS, "answers are worse: 0 became right and 20 wrong of the 40 that go out"),
        (SWAPS, "answers are not shown to be better: 20 became right and 20 wrong"),
        (CHANGES_NOTHING, "none of the 40 second answers that go out is right where the first"),
        (GUESSES, "the critic is not shown to be better than chance: it calls"),
    ],
)
def test_where_it_does_not_it_is_refused_and_the_record_says_why(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Scripted, why: str
) -> None:
    out = tmp_path / "out.safetensors"
    assert run(model, out) == 0
    assert f"recheck is refused: {why}" in capsys.readouterr().out
    record = artifacts.load(out).manifest.recheck
    assert record is not None
    assert not record.allowed
    assert record.why.startswith(why)
    settings = Settings.model_validate({"second_opinion": "recheck", "max_length": 512})
    with pytest.raises(ArtifactMismatchError, match="does not allow the second opinion 'recheck'"):
        start(settings, artifacts.load(out), tiny_checkpoint())


def test_what_is_more_ood_is_not_sent_and_does_not_count(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the second answers to the first ten go out, and these are right already or become so."""
    model = Scripted(right_at, lambda n: n < 10, more_ood=lambda n: n >= 10)
    out = tmp_path / "out.safetensors"
    assert run(model, out) == 0
    said = capsys.readouterr().out
    assert "second answer more OOD than the first: 30 of 40" in said
    assert "right before: 20 of 40 (50.0%, 33.8% to 66.2%); after: 10 of 40" in said
    record = artifacts.load(out).manifest.recheck
    assert record is not None
    counts = record.counts
    assert (counts.n_sent, counts.became_right, counts.became_wrong) == (10, 5, 0)
    assert not record.allowed, "of five answers that changed, all five prove nothing at 95 %"


def test_an_interrupted_run_goes_on_where_it_was(run: Ran, tmp_path: Path) -> None:
    kept, out = tmp_path / "kept", tmp_path / "out.safetensors"
    assert run(HELPS, out, "--keep", str(kept)) == 0
    whole, id_of_whole = (kept / "rounds.jsonl").read_text(), artifacts.load(out).id
    (kept / "rounds.jsonl").write_text("".join(whole.splitlines(keepends=True)[:35]))
    again = Scripted(HELPS.told, HELPS.right_after)
    assert run(again, out, "--keep", str(kept)) == 0
    assert artifacts.load(out).id == id_of_whole
    assert again.n_answered < HELPS.n_answered / 4
    rows = (kept / "rounds.jsonl").read_text().splitlines()
    assert len(rows) == N


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--check", "Is it? {p_value}"], "differ in asking"),
        (["--check-tokens", "8"], "differ in asking"),
    ],
)
def test_rounds_of_something_else_are_not_counted_together(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    kept, out = str(tmp_path / "kept"), tmp_path / "out.safetensors"
    assert run(HELPS, out, "--keep", kept) == 0
    assert run(HELPS, out, "--keep", kept, *options) == 2
    assert said in capsys.readouterr().err


def test_damaged_rounds_are_told(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, out = tmp_path / "kept", tmp_path / "out.safetensors"
    assert run(HELPS, out, "--keep", str(kept)) == 0
    (kept / "rounds.jsonl").write_text("{}\n")
    assert run(HELPS, out, "--keep", str(kept)) == 2
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--check", "Is it right?"], "--check has no {p_value} in it"),
        (["--again", "Again."], "--again has no {question} in it"),
    ],
)
def test_what_is_asked_must_say_what_it_must(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run(None, tmp_path / "out.safetensors", *options) == 2
    assert said in capsys.readouterr().err


def test_answers_that_are_no_numbers_are_told(
    run: Ran, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions.write_text(json.dumps({"question": "What is it?", "answer": "my-own"}))
    assert run(None, tmp_path / "out.safetensors") == 2
    error = capsys.readouterr().err
    assert "1 of 1 answers have no number" in error
    assert "my-own" not in error


def test_conversations_alone_are_told(
    run: Ran, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [{"role": "system", "content": "Be brief."}, *user("What is 3 plus 1?")]
    questions.write_text(json.dumps({"messages": asked, "answer": 4}))
    assert run(None, tmp_path / "out.safetensors") == 2
    assert "every question is of a conversation" in capsys.readouterr().err


def test_a_score_that_is_nan_ends_it(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert run(Scripted(HELPS.told, HELPS.right_after, nan=True), out) == 2
    assert "engine_error" in capsys.readouterr().err
    assert not out.exists()


def test_on_the_tiny_model_from_the_command_to_a_service(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random model is refused; where its record is made to allow it, its second answer is what
    goes out, or the refusal.
    """
    out = tmp_path / "out.safetensors"
    ood = tmp_path / "ood.jsonl"
    ood.write_text(json.dumps({"question": "z" * 40}))
    shorter = ("--check", "Is it right? {p_value}", "--again", "Again: {question}")
    options = ("--n", "6", "--ood", str(ood), "--check-tokens", "8", *shorter)
    assert run(None, out, *options) == 0
    assert "recheck is refused" in capsys.readouterr().out
    written = artifacts.load(out)
    record = written.manifest.recheck
    assert record is not None
    assert not record.allowed
    forced = record.model_copy(update={"allowed": True, "why": ""})
    manifest = written.manifest.model_copy(update={"recheck": forced})
    allowed = Artifact.of(written.detector, manifest)
    outcomes = set()
    with client_of(make_app(allowed, second_opinion="recheck")) as client:
        for letter, n in product("zq", (20, 40, 60)):
            body = {"messages": user(letter * n), "max_tokens": 24}
            answer = client.post(CHAT, json=body).json()
            verdict, (choice,) = answer["trajguard"], answer["choices"]
            opinion = verdict["second_opinion"]
            if opinion is None:
                continue
            outcomes.add(opinion["outcome"])
            assert opinion["failure"] is None
            assert opinion["tokens"] > 0
            assert opinion["failure"] is None
            if opinion["outcome"] == "freed":
                assert verdict["decision"] == "allow"
                assert choice["finish_reason"] in ("stop", "length")
                assert 0 < answer["usage"]["completion_tokens"] <= 24
                assert [look["look"] for look in verdict["looks"]] == ["prompt", "4"]
            else:
                assert verdict["decision"] == "refuse"
                assert opinion["reason"]
                assert choice["finish_reason"] == "content_filter"
    assert outcomes, "none was flagged"


def test_the_critics_test_is_fishers() -> None:
    """Against the sum over all tables with these margins."""
    counts = counts_of(n=12, right_before=5, wrong_told=5, false_told=1)
    tables = [
        math.comb(7, called) * math.comb(5, 6 - called) for called in range(7) if 6 - called <= 5
    ]
    as_extreme = math.comb(7, 5) * math.comb(5, 1) + math.comb(7, 6) * math.comb(5, 0)
    assert critic_p_value(counts) == pytest.approx(as_extreme / sum(tables))


@pytest.mark.parametrize(
    ("became_right", "became_wrong", "allowed"),
    [(6, 0, True), (5, 0, False), (9, 1, True), (8, 2, False), (0, 6, False), (0, 0, False)],
)
def test_six_of_six_that_become_right_are_enough(
    became_right: int, became_wrong: int, allowed: bool
) -> None:
    """The lower end of Clopper and Pearson's 95 % interval is .025^(1/6) = .541 of 6 of 6, and
    .478 of 5 of 5; .555 of 9 of 10, and .444 of 8 of 10.
    """
    counts = counts_of(n=40, became_right=became_right, became_wrong=became_wrong)
    assert (refusal_of(counts) is None) == allowed


def test_worse_is_called_worse() -> None:
    assert "answers are worse" in str(refusal_of(counts_of(n=40, became_wrong=6)))


def test_nothing_in_scope_is_no_figure() -> None:
    assert "0 of 0" in "".join(told_of(counts_of(n=4, right_before=4, right_told=4)))
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        counted([])


def counts_of(n: int, **fields: int) -> RecheckCounts:
    """A critic that is right, and nothing changed, but for what is given."""
    right = fields.get("right_before", n // 2)
    known = dict.fromkeys(RecheckCounts.model_fields, 0) | {
        "n": n,
        "right_before": right,
        "right_told": right,
        "wrong_told": n - right,
        "n_sent": n,
    }
    return RecheckCounts(**(known | fields))
