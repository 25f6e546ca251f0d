"""Varied questions: of the splits of what they contain, deterministic, readable."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from calibration.__main__ import main
from calibration.background import FIRST, LAST, TURN
from calibration.generate import generate
from calibration.questions import Split, key_of, read_questions, split_of
from calibration.templates import splits_and_templates
from calibration.variations import read_variations
from calibration.vary import AS_TYPED, PAIR
from tests.calibration.customs import customs

VARIATIONS = read_variations()
BACKGROUND = [
    "Who wrote Hamlet?",
    "Prove that there are infinitely many primes.",
    "Translate 'good morning' into Welsh.",
    "Integrate x^2 e^x.",
]


@pytest.fixture(scope="module")
def asked() -> list[str]:
    return customs(n_each=4, seed=0)[0] + [question for question, _ in generate(40, seed=1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, asked: list[str]) -> Path:
    """Two files of questions in scope, one with kinds, and one of the background."""
    folder = tmp_path_factory.mktemp("vary")
    files: dict[str, list[dict[str, Any]]] = {
        "customs": [{"question": text, "kind": "duty", "id": "7"} for text in asked[:40]],
        "generated": [{"prompt": text, "answer": 12} for text in asked[40:]],
        "other": [{"question": text, "kind": text.split()[0]} for text in BACKGROUND],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def varied(folder: Path, out: str, *options: str) -> dict[str, list[dict[str, Any]]]:
    files = [str(folder / name) for name in ("customs.jsonl", "generated.jsonl")]
    assert main(["vary", *files, "--out", str(folder / out), *options]) == 0
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder / out).iterdir()
    }


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return varied(folder, "a", "--background", str(folder / "other.jsonl"), "--pairs", "30")


def splits_of(texts: list[str]) -> dict[str, Split]:
    keys = [key_of([{"role": "user", "content": text}]) for text in texts]
    return splits_and_templates(dict(zip(keys, texts, strict=True)))[0]


def said(row: dict[str, Any]) -> str:
    messages = row.get("messages", [{"content": row.get("question")}])
    return "\n".join(message["content"] for message in messages)


def test_how_many_of_each(rows: dict[str, list[dict[str, Any]]]) -> None:
    counts = {name: len(found) for name, found in rows.items()}
    assert counts == {"variations": 80, "dialogues": 8, "pairs": 30, "background": 16}


def test_every_row_is_a_question_with_its_origin(
    folder: Path, rows: dict[str, list[dict[str, Any]]], asked: list[str]
) -> None:
    splits = splits_of(asked)
    for name, found in rows.items():
        questions, _ = read_questions(folder / "a" / f"{name}.jsonl")
        assert len(questions) == len(found)
        for question, row in zip(questions, found, strict=True):
            fields = question.fields
            expected = {"other"} if name == "background" else {"customs", "generated"}
            assert fields["source"] in expected
            assert ("kind" in fields) == (fields["source"] != "generated")
            assert fields.get("id") == ("7" if fields["source"] == "customs" else None)
            of = row.get("of", "").split()
            assert {splits[key] for key in of} <= (
                {"fit"} if name == "background" else {splits[of[0]]}
            )
            assert len(set(of)) == len(of)


def test_forms_are_of_one_to_three_calibrated_variations(
    rows: dict[str, list[dict[str, Any]]], asked: list[str]
) -> None:
    for text, row in zip(asked, rows["variations"], strict=True):
        assert row["of"] == key_of([{"role": "user", "content": text}])
        names = row["variation"].split()
        assert 1 <= len(names) <= 3
        assert not any(VARIATIONS[name].held_out for name in names)
        assert row["question"] != text


def test_pairs_hold_all_of_their_questions(
    rows: dict[str, list[dict[str, Any]]], asked: list[str]
) -> None:
    by_key = {key_of([{"role": "user", "content": text}]): text for text in asked}
    sizes = Counter(len(row["of"].split()) for row in rows["pairs"])
    assert set(sizes) == {2, 3}
    assert sizes[2] > sizes[3]
    assert any("messages" in row for row in rows["pairs"])
    for row in rows["pairs"]:
        assert row["variation"].split()[0] == PAIR
        if row["variation"] == PAIR:
            places = [said(row).index(by_key[key]) for key in row["of"].split()]
            assert places == sorted(places)


def test_dialogues_name_the_questions_that_are_said(folder: Path, asked: list[str]) -> None:
    found = varied(folder, "talk", "--forms", "0", "--pairs", "0", "--dialogues", "300")
    assert set(found) == {"dialogues"}
    # Rows of one key are one question.
    assert 280 < len(found["dialogues"]) <= 300
    keys = {key_of([{"role": "user", "content": text}]): text for text in asked}
    several = 0
    for row in found["dialogues"]:
        of = row["of"].split()
        several += len(of) > 1
        whole = said(row).lower()
        mentioned = [key for key, text in keys.items() if text.lower().rstrip(".") in whole]
        assert set(mentioned) <= set(of)
    assert several > 20


def test_background_stands_alone_beside_and_after(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    for question, number in zip(BACKGROUND, range(0, 16, 4), strict=True):
        alone, beside, after, other = rows["background"][number : number + 4]
        assert "of" not in alone
        assert alone["variation"] == AS_TYPED or "background" not in alone["variation"]
        places = {row["variation"].split()[0] for row in (beside, other)}
        assert places == {FIRST, LAST}
        assert after["variation"].split()[0] == TURN
        assert "messages" in after
        if after["variation"] == TURN:
            assert after["messages"][-1]["content"] == question
        assert all(row["kind"] == question.split()[0] for row in (alone, beside, after, other))


def test_the_same_seed_writes_the_same_files(folder: Path) -> None:
    one, two = (varied(folder, out, "--dialogues", "3") for out in ("b", "c"))
    assert one == two
    assert varied(folder, "d", "--dialogues", "3", "--seed", "1") != one


def test_held_out_forms_are_of_one_kind_each(folder: Path, asked: list[str]) -> None:
    found = varied(
        folder, "e", "--held-out", "--split", "holdout", "--forms", "3", "--dialogues", "0"
    )
    splits = splits_of(asked)
    holdout = [key for key, split in splits.items() if split == "holdout"]
    forms = Counter(row["of"] for row in found["variations"])
    assert forms == dict.fromkeys(holdout, 3)
    kinds = {(row["of"], row["variation"]) for row in found["variations"]}
    assert len(kinds) == 3 * len(holdout)
    assert all(VARIATIONS[kind].held_out for _, kind in kinds)


def test_more_variations_from_a_file(folder: Path) -> None:
    path = folder / "more.toml"
    path.write_text('[[variation]]\nname = "ahoy"\nfamily = "sea"\nbefore = ["Ahoy!"]')
    found = varied(folder, "f", "--forms", "8", "--variations", str(path))
    ahoy = [row for row in found["variations"] if row["variation"] == "ahoy"]
    assert ahoy
    assert all(said(row).startswith("Ahoy!") for row in ahoy)


def test_conversations_keep_what_was_said_before(tmp_path: Path) -> None:
    earlier = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
    ]
    rows = [
        {"messages": [*earlier, {"role": "user", "content": text}]}
        for text, _ in generate(30, seed=2)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["vary", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "v")]) == 0
    for path in (tmp_path / "v").iterdir():
        for line in path.read_text().splitlines():
            messages = json.loads(line)["messages"]
            assert messages[:3] == earlier
            assert [message["role"] for message in messages].count("system") == 1


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ('{"question": "1 + 2?", "of": "ab"}', [], "'q' has rows with 'of', which `vary` wrote"),
        ('{"question": "1 + 2?"}', ["--background", "none"], "'none' cannot be read"),
        ('{"question": "1 + 2?"}', ["--forms", "-1"], "--forms is '-1'"),
        ('{"question": "1 + 2?"}', ["--variations", "none"], "'none' cannot be read"),
    ],
)
def test_what_cannot_be_varied(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: str,
    options: list[str],
    message: str,
) -> None:
    (tmp_path / "q.jsonl").write_text(rows)
    assert main(["vary", str(tmp_path / "q.jsonl"), "--out", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_background_needs_questions_to_stand_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {key_of([{"role": "user", "content": text}]): text for text in BACKGROUND}
    asked = next(text for key, text in keys.items() if split_of(key) != "fit")
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": asked}))
    (tmp_path / "b.jsonl").write_text('{"question": "What is a noun?"}')
    files = [str(tmp_path / "q.jsonl"), "--background", str(tmp_path / "b.jsonl")]
    assert main(["vary", *files, "--out", str(tmp_path / "v"), "--known-templates"]) == 2
    assert "none of the 1 questions is of the fit split" in capsys.readouterr().err
