"""The calibration commands end to end on a tiny checkpoint folder, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from calibration.__main__ import main
from calibration.collect import QuestionsFile, collect
from calibration.collection import CollectionFolder
from calibration.commands.collect import parse_looks
from calibration.commands.fit import _parse_parts
from calibration.generate import generate
from calibration.paths import RECORD
from calibration.questions import read_questions
from detector import artifact as artifacts
from detector.backend import Sampling
from detector.canonical import CANONICAL
from detector.engine.engine import Engine
from detector.errors import CalibrationError, EngineError
from detector.manifest import Context
from detector.trajectory import PROMPT, patch
from tests.tiny import tiny_checkpoint

# Generated questions are of 15 templates.
KNOWN = "--known-templates"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as an ordinary local folder."""
    folder = tmp_path_factory.mktemp("model")
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Generated questions and an OOD file, collected by the command line."""
    folder = tmp_path_factory.mktemp("work")
    assert main(["generate", "--n", "300", "--out", str(folder / "id.jsonl")]) == 0
    rows = [json.dumps({"question": f"zz{'z' * (n % 9)} {n}"}) for n in range(40)]
    (folder / "ood.jsonl").write_text("\n".join(rows))
    files = [str(folder / "id.jsonl"), str(folder / "ood.jsonl")]
    out = ["--out", str(folder / "collected"), "--model", str(model), "--dtype", "float32"]
    assert main(["collect", *files, *out, "--looks", "prompt,3", "--text", "typed"]) == 0
    return folder


def failing(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error [")
    return message


def test_fit_and_report(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = work / "artifact.safetensors"
    collected = str(work / "collected" / "id")
    fit = ["fit", collected, KNOWN, "--out", str(artifact), "--scope", "tests", "--rank", "8"]
    assert main(fit) == 0
    manifest = artifacts.load(artifact).manifest
    assert manifest.scope == "tests"
    assert [look.look for look in manifest.looks] == ["prompt", "3"]
    assert manifest.context.max_tokens == 3
    splits = manifest.splits
    assert splits.fit + splits.conformal + splits.holdout == 300
    ood = str(work / "collected" / "ood")
    assert main(["report", str(artifact), collected, "--ood", ood]) == 0
    shown = capsys.readouterr().out
    assert f"of {splits.holdout} =" in shown
    lines = shown.splitlines()
    assert any(line.startswith("rank correlation of guard with the number of") for line in lines)
    (start,) = (place for place, line in enumerate(lines) if line.startswith("OOD file"))
    guard, *parts = [line.split() for line in lines[start + 1 : lines.index("", start)]]
    name, score, n, auroc, fpr95, recall, matched, pairs, surface, surface_fpr95 = guard
    assert (name, score, n) == ("ood", "guard", "40")
    assert [row[1] for row in parts] == ["prompt:mahalanobis", "3:mahalanobis"]
    assert all(row[5] == "-" for row in parts)
    # 160 holdout questions tell 0.05 from 0.1; two in ten questions are holdout.
    suggested = lines[-1]
    assert suggested.startswith("collect next: about ")
    assert f"for {splits.holdout} holdout questions cannot tell" in suggested
    # Repeated letters hold no number, so no pair matches, and their surface gives them away.
    assert (matched, pairs, surface, surface_fpr95) == ("-", "(0)", "100.0", "0.0")
    # Repeated letters are far from word problems even for random weights.
    assert float(auroc) > 99
    assert float(fpr95) < 5
    # The threshold lies in the tail of the OOD scores, where rounding decides on one or two of 40.
    assert float(recall) >= 90
    assert main(["report", str(artifact), collected, "--alpha", "0.2"]) == 0
    shown = capsys.readouterr().out
    assert "alpha 0.2" in shown
    assert "collect next" not in shown


def test_ood_collections_of_every_time_the_option_is_given(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, collected = work / "twice.safetensors", str(work / "collected" / "id")
    fit = ["fit", collected, KNOWN, "--out", str(artifact), "--scope", "tests", "--rank", "4"]
    assert main([*fit, "--guard", "prompt:coe-r", "--guard", "prompt:coe-c", "3:coe-c"]) == 0
    looks = artifacts.load(artifact).manifest.looks
    assert [look.score for look in looks] == ["coe-r", "coe-c", "coe-c"]
    copy = work / "copy" / "more"
    copy.mkdir(parents=True)
    for file in (work / "collected" / "ood").iterdir():
        content = file.read_bytes().replace(b'"name":"ood"', b'"name":"more"')
        (copy / file.name).write_bytes(content.replace(b'"name": "ood"', b'"name": "more"'))
    ood = ["--ood", str(work / "collected" / "ood"), "--ood", str(copy)]
    assert main(["report", str(artifact), collected, *ood]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in ("ood", "more"))


def test_collect_says_what_alpha_its_questions_can_keep(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A CSV of another column, and a folder of JSON Lines."""
    (tmp_path / "a.csv").write_text("id,text\n1,What is 1 + 2?\n2,What is 5 + 6?\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "part.jsonl").write_text('{"text": "What is 3 + 4?"}\n')
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b"), "--column", "text"]
    out = ["--out", str(tmp_path / "c"), "--model", str(model), "--dtype", "float32"]
    with caplog.at_level("INFO"):
        assert main(["collect", *files, *out]) == 0
    (said,) = (message for message in caplog.messages if message.startswith("3 distinct questions"))
    assert "alpha 0.05 needs about " in said
    records = {name: CollectionFolder(tmp_path / "c" / name).record() for name in ("a", "b")}
    assert {name: record.source.n_questions for name, record in records.items()} == {"a": 2, "b": 1}


def test_a_subset_of_looks_and_another_score(work: Path) -> None:
    out = work / "tv.safetensors"
    collected = str(work / "collected" / "id")
    options = ["--guard", "prompt:tv-paper:1", "prompt:coe-r", "--rank", "4"]
    assert main(["fit", collected, KNOWN, "--out", str(out), "--scope", "tests", *options]) == 0
    looks = artifacts.load(out).manifest.looks
    assert [(look.look, look.score, look.order) for look in looks] == [
        ("prompt", "tv-paper", 1),
        ("prompt", "coe-r", 0),
    ]


def test_interrupted_collection_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["generate", "--n", "200", "--out", str(tmp_path / "q.jsonl")]) == 0
    questions, source = read_questions(tmp_path / "q.jsonl")

    def run(folder: str) -> None:
        collect(
            tiny_checkpoint(),
            [QuestionsFile(questions, source, tmp_path / folder)],
            context=Context(max_tokens=2),
            looks=(PROMPT, 2),
            max_length=512,
        )

    run("whole")
    steps = 0
    step = Engine.step

    def interrupted(self: Engine) -> object:
        nonlocal steps
        steps += 1
        if steps == 40:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    begun = CollectionFolder(tmp_path / "parts")
    with pytest.raises(Exception, match="of 200 questions: run its `collect` command again"):
        begun.read()
    n_shards = len(list((tmp_path / "parts").glob("shard-*")))
    assert 0 < n_shards < 4
    run("parts")
    whole, parts = CollectionFolder(tmp_path / "whole").read(), begun.read()
    assert sorted(parts.keys) == sorted(whole.keys)
    order = [parts.keys.index(key) for key in whole.keys]
    expected = next(whole.at(PROMPT).batches())
    error = (next(parts.at(PROMPT).select(torch.tensor(order)).batches()) - expected).norm(dim=-1)
    assert (error <= 1e-5 * expected.norm(dim=-1) + 1e-6).all()


def test_collections_that_differ_are_not_mixed(
    work: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [work / "ood.jsonl", "--model", model, "--dtype", "float32", "--looks", "prompt"]
    into = ["--out", work / "collected"]
    assert "differ in context" in failing(capsys, "collect", *other, *into)
    again = ["--out", tmp_path]
    assert main([str(x) for x in ("collect", *other, *again)]) == 0
    both = [work / "collected" / "id", tmp_path / "ood"]
    fit = ["--out", tmp_path / "a.safetensors", "--scope", "x"]
    assert "collect both with the same model" in failing(capsys, "fit", *both, *fit)
    changed = tmp_path / "id.jsonl"
    changed.write_bytes((work / "id.jsonl").read_bytes() + b'{"question": "One more?"}\n')
    options = ["--model", model, "--dtype", "float32", "--looks", "prompt,3", "--text", "typed"]
    assert "has changed since" in failing(capsys, "collect", changed, *options, *into)


def test_bad_input_names_the_fix(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collected, artifact = work / "collected" / "id", tmp_path / "a.safetensors"
    fit = ("fit", collected, "--out", artifact, "--scope", "x", "--rank", 4, KNOWN)
    few = failing(capsys, *fit, "--alpha", "0.001")
    # 999 conformal questions; of 300 about 90 are.
    assert "alpha 0.001 cannot be kept (marginal) with 300 questions: collect about 3" in few
    kept = few.partition("or raise --alpha to ")[2].partition(",")[0]
    assert main([str(x) for x in (*fit, "--alpha", kept)]) == 0
    artifact.unlink()
    assert not artifact.exists()
    assert "look '7' was not collected" in failing(capsys, *fit, "--guard", "7:mahalanobis")
    assert "one part twice" in failing(capsys, *fit, "--guard", "3:coe-c", "3:coe-c")
    assert "no score at a look" in failing(capsys, *fit, "--guard", "prompt:best")
    assert "has no order 2" in failing(capsys, *fit, "--guard", "prompt:coe-r:2")
    assert "is not a collection" in failing(capsys, "fit", tmp_path, *fit[2:])
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "a"}\n{"question": 1}\n')
    collect_bad = ("collect", bad, "--out", tmp_path / "c")
    assert "line 2" in failing(capsys, *collect_bad)
    assert "give --max-tokens" in failing(
        capsys, *collect_bad[:1], work / "id.jsonl", *collect_bad[2:], "--looks", "prompt,end"
    )
    assert "cannot be loaded" in failing(
        capsys, "collect", work / "id.jsonl", "--out", tmp_path / "c", "--model", tmp_path
    )
    assert main([str(x) for x in fit]) == 0
    same = ("report", artifact, collected, "--ood", collected)
    assert "is of an in-distribution file" in failing(capsys, *same)


def test_damaged_shards_are_named(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "id"
    copy.mkdir()
    for file in (work / "collected" / "id").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    shard = sorted(copy.glob("shard-*"))[1]
    shard.write_bytes(shard.read_bytes()[:50])
    fit = ("fit", copy, "--out", tmp_path / "a.safetensors", "--scope", "x")
    assert f"{shard.name}' is damaged" in failing(capsys, *fit)


def test_conversations_and_sampling_are_recorded(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    (tmp_path / "m.jsonl").write_text(json.dumps({"messages": messages}))
    questions, source = read_questions(tmp_path / "m.jsonl")
    checkpoint = tiny_checkpoint()
    for judged in ("question", "conversation"):
        collect(
            checkpoint,
            [QuestionsFile(questions, source, tmp_path / judged)],
            context=Context(judged=judged, sampling=Sampling(temperature=0.5), max_tokens=3),
            looks=(PROMPT, 3),
            max_length=512,
        )
    question, conversation = (
        CollectionFolder(tmp_path / judged).read() for judged in ("question", "conversation")
    )
    assert conversation.record.context.sampling.temperature == 0.5
    assert not torch.equal(question.at(PROMPT)[1], conversation.at(PROMPT)[1])


def test_template_s_line_break_survives_the_shell(work: Path, model: Path, tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "2 + 2?"}\n')
    options = ["--out", str(tmp_path / "c"), "--model", str(model), "--dtype", "float32"]
    assert main(["collect", str(questions), *options, "--template", r"Q: {question}\nA:"]) == 0
    record = CollectionFolder(tmp_path / "c" / "q").record()
    assert record.context.template == "Q: {question}\nA:"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], CANONICAL),
        (["--text", "typed"], "typed"),
        (["--judged", "conversation"], "typed"),
        (["--judged", "conversation", "--text", "typed"], "typed"),
    ],
)
def test_collections_say_how_texts_are_written(
    model: Path, tmp_path: Path, options: list[str], text: str
) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "2 + 2?"}\n')
    out = ["--out", str(tmp_path / "c"), "--model", str(model), "--dtype", "float32"]
    assert main(["collect", str(questions), *out, "--looks", "question", *options]) == 0
    assert CollectionFolder(tmp_path / "c" / "q").record().context.text == text


def test_a_conversation_is_not_rewritten(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["collect", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "c")]
    said = failing(capsys, *command, "--judged", "conversation", "--text", CANONICAL)
    assert "--text canonical/1 rewrites questions" in said


def test_groups_by_length_and_by_field(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question": question, "route": "even" if answer % 2 == 0 else "odd"}
        for question, answer in generate(400, seed=5)
    ]
    questions = tmp_path / "q.jsonl"
    questions.write_text("\n".join(map(json.dumps, rows)))
    out = ["--out", str(tmp_path / "c"), "--model", str(model), "--dtype", "float32"]
    assert main(["collect", str(questions), *out]) == 0
    collected = str(tmp_path / "c" / "q")
    artifact = tmp_path / "a.safetensors"
    fit = ["fit", collected, KNOWN, "--out", str(artifact), "--scope", "x", "--rank", "4"]
    for by, n_groups in (("length", 3), ("route", 2)):
        assert main([*fit, "--group-by", by, "--alpha", "0.1"]) == 0
        loaded = artifacts.load(artifact)
        groups = loaded.manifest.groups
        assert len(groups) == len(loaded.detector.groups) == n_groups
        assert sum(group.n_conformal for group in groups) == loaded.manifest.splits.conformal
        capsys.readouterr()
        assert main(["report", str(artifact), collected]) == 0
        shown = capsys.readouterr().out
        assert all(f"  {group.name} (" in shown for group in groups)
    assert "text field 'nothing'" in failing(capsys, *fit, "--group-by", "nothing")
    few = failing(capsys, *fit, "--group-by", "length", "--alpha", "0.01")
    assert "of group '" in few
    assert "; 99 conformal questions take about 380 questions of that group in all" in few


def test_nan_names_the_question_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "2 + 2?"}\n{"question": "3 ~ 1?"}\n')
    questions, source = read_questions(tmp_path / "q.jsonl")
    checkpoint = tiny_checkpoint()
    embeddings = checkpoint.model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    with torch.no_grad():
        embeddings.weight[checkpoint.tokenizer.encode("~")] = torch.nan
    for looks in ((PROMPT,), (PROMPT, 3)):
        with pytest.raises(EngineError, match=f"question {questions[1].key} of q are NaN"):
            collect(
                checkpoint,
                [QuestionsFile(questions, source, tmp_path / str(len(looks)))],
                context=Context(max_tokens=3),
                looks=looks,
                max_length=512,
            )


@pytest.mark.parametrize("bad", ["0", "-1", "many", ""])
def test_a_bad_number_of_threads_is_said(
    bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAJGUARD_THREADS", bad)
    (tmp_path / RECORD).touch()
    message = failing(
        capsys, "fit", tmp_path, "--out", tmp_path / "a.safetensors", "--scope", "none"
    )
    assert f"TRAJGUARD_THREADS is {bad!r}" in message


def test_all_patches_stand_for_their_looks() -> None:
    assert parse_looks("prompt, 4,8,1-16/8,16") == (PROMPT, 4, 8, patch(9, 16), 16)
    parts = _parse_parts(["prompt:coe-r", "8:tv-paper:1", "1-16/8:tv-paper:1"])
    assert parts is not None
    assert [str(part) for part in parts] == ["prompt:coe-r", "8:tv-paper:1", "9-16:tv-paper:1"]
    with pytest.raises(CalibrationError, match="names one look twice"):
        parse_looks("4,prompt,4")
    with pytest.raises(CalibrationError, match="names one part twice"):
        _parse_parts(["prompt", "prompt:mahalanobis"])
    with pytest.raises(CalibrationError, match="no score at a look"):
        _parse_parts(["1-16/8:volatility"])
