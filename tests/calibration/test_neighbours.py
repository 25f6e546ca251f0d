"""`trajguard neighbours`, and what `fit` and `report` make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from calibration.__main__ import main
from calibration.collection import CollectionFolder
from calibration.pooling import pools_of
from calibration.questions import is_made
from detector import artifact as artifacts
from detector.artifact import Artifact
from detector.trajectory import PROMPT
from tests.calibration.conftest import Collected


def fit(collected: Collected, out: Path, *options: str) -> Artifact:
    inside = [str(folder) for folder in collected.inside]
    contrast = ["--contrast", str(collected.background)]
    asked = ["--scope", "of tests", "--alpha", "0.2", "--out", str(out)]
    assert main(["fit", *inside, *contrast, *asked, *options]) == 0
    return artifacts.load(out)


@pytest.fixture(scope="module")
def plain(collected: Collected, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    assert fit(collected, path, "--neighbours", "0").detector.neighbours is None
    return path


def put(plain: Path, collected: Collected, out: Path, *options: str) -> int:
    inside = [str(folder) for folder in collected.inside]
    return main(["neighbours", str(plain), *inside, "--out", str(out), *options])


def test_neighbours_are_conformal_questions_and_nothing_is_judged_otherwise(
    plain: Path, collected: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "with.safetensors"
    assert put(plain, collected, out, "--contrast", str(collected.background)) == 0
    before, after = artifacts.load(plain), artifacts.load(out)
    said = capsys.readouterr().out
    assert f"artifact {before.id} with neighbours is {after.id}" in said
    assert "(0 with their texts)" in said
    kept = load_file(out)
    assert all(torch.equal(kept[name], tensor) for name, tensor in load_file(plain).items())
    names = after.manifest.neighbours
    assert names is not None
    assert after.manifest.model_copy(update={"neighbours": None}) == before.manifest
    collections = [CollectionFolder(folder).read() for folder in collected.inside]
    pools = pools_of(before.manifest, collections)
    typed = {
        key: unit
        for key, unit, fields in zip(
            pools["conformal"].keys,
            pools["conformal"].units,
            pools["conformal"].fields,
            strict=True,
        )
        if not is_made(fields)
    }
    ids = [each.id for each in names.questions]
    # All of them: as they were typed, once each.
    assert sorted(ids) == sorted(typed)
    assert not set(ids) & set(pools["fit"].keys)
    # One of each template before a second of any.
    units = [typed[each] for each in ids]
    n_templates = len(set(units))
    assert len(set(units[:n_templates])) == n_templates
    assert all(each.text is None for each in names.questions)
    assert names.kinds
    assert all(each.n_questions >= 5 for each in names.kinds)
    # Each lies at its own place.
    assert after.detector.neighbours is not None
    found = after.detector.neighbours.looks[PROMPT]
    whole = pools["conformal"]
    row = whole.keys.index(ids[3])
    trajectory = next(whole.take([row]).at([PROMPT])[PROMPT].batches())
    distances = found.distances(found.space.place(trajectory)[0])
    assert int(distances.argmin()) == 3
    assert float(distances[3]) < 2e-3


def test_texts_are_kept_where_that_is_asked_for(
    plain: Path, collected: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "with.safetensors"
    assert put(plain, collected, out, "--n", "7", "--keep-questions") == 0
    names = artifacts.load(out).manifest.neighbours
    assert names is not None
    assert len(names.questions) == 7
    assert names.kinds == ()
    typed = CollectionFolder(collected.typed).read()
    texts = dict(zip(typed.keys, typed.texts, strict=True))
    assert [each.text for each in names.questions] == [texts[each.id] for each in names.questions]
    assert put(plain, collected, out, "--keep-questions-of", "typed") == 0
    names = artifacts.load(out).manifest.neighbours
    assert names is not None
    assert all((each.text is not None) == (each.file == "typed") for each in names.questions)
    capsys.readouterr()
    assert put(plain, collected, out, "--keep-questions-of", "GSM8K") == 2
    assert "'GSM8K' is none of the questions files (typed, " in capsys.readouterr().err


def test_other_collections_than_it_was_fitted_to_are_refused(
    plain: Path, collected: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "with.safetensors"
    assert main(["neighbours", str(plain), str(collected.typed), "--out", str(out)]) == 2
    assert "give the collections that it was fitted to" in capsys.readouterr().err
    assert not out.exists()


def test_fit_keeps_neighbours_too(collected: Collected, tmp_path: Path) -> None:
    fitted = fit(collected, tmp_path / "a.safetensors", "--keep-questions", "--neighbours", "9")
    names = fitted.manifest.neighbours
    assert names is not None
    assert len(names.questions) == 9
    assert all(each.text for each in names.questions)
    assert names.kinds


def test_texts_without_neighbours_are_refused(
    collected: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--scope", "x", "--out", str(tmp_path / "a.safetensors")]
    asked = ["--neighbours", "0", "--keep-questions"]
    assert main(["fit", str(collected.typed), *out, *asked]) == 2
    assert "--neighbours is 0" in capsys.readouterr().err


def test_the_report_explains_flags(
    collected: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.safetensors"
    fit(collected, path, "--keep-questions-of", "typed")
    capsys.readouterr()
    files = {kind: tmp_path / f"r.{kind}" for kind in ("json", "html")}
    inside = [str(folder) for folder in collected.inside]
    asked = ["--ood", str(collected.other), "--alpha", "0.5"]
    written = [part for kind, file in files.items() for part in (f"--{kind}", str(file))]
    assert main(["report", str(path), *inside, *asked, *written]) == 0
    told = capsys.readouterr().out
    assert "why these are flagged: false alarms" in told
    rows = json.loads(files["json"].read_text())["explained"]
    assert {row["of"] for row in rows} <= {"false alarms", "words"}
    alarms = [row for row in rows if row["of"] == "false alarms"]
    assert 0 < len(alarms) <= 5
    for row in rows:
        assert sum(each["share"] for each in row["layers"]) == pytest.approx(row["score"])
        assert len(row["neighbours"]) == 5
        assert row["text"] is None
        assert row["key"] in told
        assert row["kind"]["name"] in told
    page = files["html"].read_text()
    assert "Why they are flagged" in page
    assert rows[0]["neighbours"][0]["id"][:4] in page or rows[0]["neighbours"][0]["text"] in page


def test_an_artifact_without_neighbours_is_explained_by_layers_alone(
    plain: Path, collected: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = [str(folder) for folder in collected.inside]
    page = tmp_path / "r.html"
    assert main(["report", str(plain), *inside, "--alpha", "0.5", "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert "layers against it: " in told
    assert "`trajguard neighbours` adds them" in told
    assert "Nearest in scope" not in page.read_text()
