"""Influence: EK-FAC beside the exact solve, gradients beside autograd's, findings beside naive."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from calibration.bench.paper.ladder import write_ladder
from calibration.collect import QuestionsFile, collect
from calibration.collection import read_collections
from calibration.generate import write_questions
from calibration.influence import pairs
from calibration.influence.ekfac import fit_factors
from calibration.influence.findings import correlations, masses, procedures, spearman
from calibration.influence.gradients import Batch, Gradients, Kind, Layer, layers_of
from calibration.influence.pairs import Influence, Options, influences, total
from calibration.influence.texts import Counted, batches, documents, query
from calibration.pooling import Pool
from calibration.questions import Question, read_questions
from calibration.reporting.scoring import scores_of
from detector.engine.model.text import Text
from detector.errors import CalibrationError, UnsupportedModelError
from detector.manifest import Context
from detector.trajectory import PROMPT
from tests.calibration.exact_influence import (
    KINDS,
    Exact,
    ekfac,
    exact_matrix,
    rank_correlation,
    small_checkpoint,
    sums,
    texts_of,
    weight_gradients,
)
from tests.tiny import tiny_checkpoint
from trajguard import main

if TYPE_CHECKING:
    from detector.artifact import Artifact
    from detector.engine.model.checkpoint import Checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small() -> Checkpoint:
    return small_checkpoint()


@pytest.fixture(scope="module")
def texts(small: Checkpoint) -> list[Counted]:
    return texts_of(small, 40)


def test_ekfac_ranks_as_the_exact_damped_solve_does(
    small: Checkpoint, texts: list[Counted]
) -> None:
    """In float64, by an explicit Jacobian, layer by layer, as EK-FAC has them. What differs is
    what it leaves out, the matrix between directions of its basis, which matters less the larger
    the damping is: docs/second-stage.md has the figures, and those of the joint matrix.
    """
    read, asked = texts[:32], texts[32:]
    exact = Exact.of(small, read, asked)
    for damping, at_least in ((10.0, 0.98), (1.0, 0.95), (0.1, 0.88)):
        found = ekfac(small, read, asked, damping)
        layerwise = exact.solve(exact.layerwise, damping)
        assert rank_correlation(found, layerwise) >= at_least
        # Plain products of gradients do not rank so.
        assert rank_correlation(exact.asked @ exact.read.T, layerwise) < at_least


def test_gradients_are_autograds_and_do_not_depend_on_the_batch(
    small: Checkpoint, texts: list[Counted]
) -> None:
    layers = layers_of(small.model)
    shown: dict[Layer, Tensor] = {}

    def keep(layer: Layer, inputs: Tensor, outputs: Tensor) -> None:
        shown[layer] = outputs.mT @ inputs

    few = [texts[0], replace(texts[1], first=4), texts[2]]
    assert len({len(text.tokens) for text in few}) > 1
    totals = Gradients(small.model, layers).of_texts(Batch.of(few, CPU), keep)
    for row, text in enumerate(few):
        expected = weight_gradients(small, layers, text)
        for layer, gradient in zip(layers, expected, strict=True):
            torch.testing.assert_close(shown[layer][row], gradient)
        with torch.inference_mode():
            logits = small.model(torch.tensor([text.tokens])).logits[0]
        logprobs = logits.log_softmax(-1)
        counted = range(text.first, len(text.tokens))
        torch.testing.assert_close(
            totals[row], sum(logprobs[at - 1, text.tokens[at]] for at in counted)
        )


def test_eigenvalues_are_the_diagonal_of_the_exact_matrix(
    small: Checkpoint, texts: list[Counted]
) -> None:
    """In the basis; drawn 400 times a text, of which the mean is within a few percent."""
    layers = layers_of(small.model)
    read = texts[:4]
    matrix = exact_matrix(small, layers, read)
    gradients = Gradients(small.model, layers)
    factors = fit_factors(gradients, [Batch.of(read, CPU)], damping=0.5, draws=400)
    start = 0
    for layer in layers:
        each = factors[layer]
        size = layer.module.weight.numel()
        block = matrix[start : start + size, start : start + size]
        start += size
        basis = torch.kron(each.outputs, each.inputs)
        diagonal = (basis.T @ block @ basis).diagonal().reshape(each.damped.shape)
        # Of the mean of n squares whose kurtosis is some 10, the deviation is 3 / sqrt(1600).
        expected = diagonal + 0.5 * diagonal.mean()
        assert ((each.damped - expected).norm() / expected.norm()) < 0.15


def test_pairs_do_not_depend_on_batches_or_blocks_at_once(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(n_layers=3, hidden_size=8)
    tiny.model.double()
    read = documents(Text(tiny.tokenizer, "{question}"), 0, [("sums", sums(8))])
    found = [
        influences(
            tiny.model,
            read[:5],
            read[5:],
            tmp_path / str(tokens),
            Options(at_once=at_once, tokens=tokens),
            weights="w",
        )
        for at_once, tokens in ((1, 1), (3, 1000))
    ]
    assert list(found[0]) == [(block, kind) for block in range(3) for kind in ("attention", "mlp")]
    for place, influence in found[0].items():
        for name, value in vars(influence).items():
            torch.testing.assert_close(value, getattr(found[1][place], name), msg=str(place))


def test_own_influence_is_that_of_the_same_text(
    small: Checkpoint, texts: list[Counted], tmp_path: Path
) -> None:
    few = texts[:6]
    found = total(influences(small.model, few, few, tmp_path, Options(), weights="w"), KINDS)
    torch.testing.assert_close(found.pairs, found.pairs.T)
    torch.testing.assert_close(found.pairs.diagonal(), found.queries)
    torch.testing.assert_close(found.pairs.diagonal(), found.documents)
    assert torch.linalg.eigvalsh(found.pairs).min() > 0


def test_a_run_goes_on_where_it_was_and_no_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_checkpoint(n_layers=2, hidden_size=8)
    read = documents(Text(tiny.tokenizer, "{question}"), 0, [("sums", sums(6))])
    asked = (tiny.model, read[:4], read[4:], tmp_path)
    options = Options(at_once=1)
    first = influences(*asked, options, weights="w")
    (tmp_path / "blocks-001.safetensors").unlink()
    ran: list[set[int]] = []
    of_layers = pairs._of_layers

    def watched(*given: object) -> dict[tuple[int, Kind], Influence]:
        ran.append({layer.block for layer in given[1]})  # type: ignore[attr-defined]
        return of_layers(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(pairs, "_of_layers", watched)
    # How it is divided is no part of what is found.
    again = influences(*asked, Options(at_once=2, tokens=1), weights="w")
    assert ran == [{1}]
    for place, influence in first.items():
        torch.testing.assert_close(influence.pairs, again[place].pairs, rtol=1e-3, atol=1e-4)
    for n, damping, weights in ((4, 0.2, "w"), (4, 0.1, "others"), (3, 0.1, "w")):
        changed = (tiny.model, read[:n], read[4:], tmp_path, Options(damping=damping))
        with pytest.raises(CalibrationError, match="choose another --out"):
            influences(*changed, weights=weights)


def test_what_all_documents_begin_with_is_not_counted(small: Checkpoint) -> None:
    text = Text(small.tokenizer)
    asked = [
        Question(({"role": "user", "content": said},), said, answer)
        for said, answer in (("2+5=", 7), ("8+1/2=", 8.5))
    ]
    first, second = documents(text, 0, [("sums", asked)])
    assert text.decode(first.tokens[first.first :]) == f"{asked[0].text}\n<assistant>7"
    assert text.decode(second.tokens).endswith("<assistant>8.5")
    assert first.tokens[-1] == 0
    # Alone, there is nothing to tell the template by.
    (alone,) = documents(text, 0, [("sums", asked[:1])])
    assert alone.first == 1
    with pytest.raises(CalibrationError, match="has no answer"):
        documents(text, 0, [("sums", [replace(asked[0], answer=None)])])


def test_of_a_query_the_response_is_counted(small: Checkpoint) -> None:
    text = Text(small.tokenizer)
    made = query(text, "key", "set", "2+2?", text.encode_response("four"))
    assert made is not None
    assert text.decode(made.tokens[made.first :]) == "four"
    assert query(text, "key", "set", "2+2?", ()) is None


def test_batches_hold_every_text_and_no_more_than_they_may(texts: list[Counted]) -> None:
    found = list(batches(texts, 40))
    assert sorted(place for batch in found for place in batch) == list(range(len(texts)))
    longest = [max(len(texts[place].tokens) for place in batch) for batch in found]
    assert all(len(batch) * n <= 40 for batch, n in zip(found, longest, strict=True))
    assert [len(batch) for batch in batches(texts, 1)] == [1] * len(texts)


def test_a_model_without_blocks_is_told() -> None:
    with pytest.raises(UnsupportedModelError, match="numbered blocks"):
        layers_of(nn.Linear(2, 2))


def of_procedures(
    noise: float,
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], list[str]]:
    """Two procedures, each with small and large numbers, over 100 documents."""
    draw = np.random.default_rng(0)
    means = {"slope": draw.normal(size=100), "sum": draw.normal(size=100)}
    sets = [f"{name}-{size}" for name in means for size in ("small", "large") for _ in range(6)]
    rows = [means[name.split("-")[0]] + noise * draw.normal(size=100) for name in sets]
    return np.array(rows), sets


def test_procedures_are_found_where_there_are_and_not_elsewhere() -> None:
    found = procedures(*of_procedures(noise=0.5))
    assert found.difference.low is not None
    # Of a signal of variance 1 and noise of 0.25 the correlation is 0.8.
    assert found.other_numbers.value == pytest.approx(0.8, abs=0.05)
    assert found.other_procedure.value == pytest.approx(0, abs=0.2)
    assert found.difference.low > 0.5
    assert found.nearest.value == 1
    assert found.by_chance == pytest.approx(11 / 23)
    noise, sets = of_procedures(noise=100)
    none = procedures(noise, sets)
    assert none.difference.low is not None
    assert none.difference.high is not None
    assert none.difference.low < 0 < none.difference.high


def test_means_are_those_of_pairs_written_out() -> None:
    values, sets = of_procedures(noise=2)
    table = correlations(values)
    kinds: dict[str, list[float]] = {"same": [], "numbers": [], "procedures": []}
    for one in range(len(sets)):
        for other in range(one):
            same = sets[one].split("-")[0] == sets[other].split("-")[0]
            kind = "same" if sets[one] == sets[other] else "numbers" if same else "procedures"
            kinds[kind].append(float(np.corrcoef(values[one], values[other])[0, 1]))
            assert table[one, other] == pytest.approx(kinds[kind][-1])
    found = procedures(values, sets)
    assert found.same_set.value == pytest.approx(np.mean(kinds["same"]))
    assert found.other_numbers.value == pytest.approx(np.mean(kinds["numbers"]))
    assert found.other_procedure.value == pytest.approx(np.mean(kinds["procedures"]))


def test_masses_are_as_defined() -> None:
    values = np.array([[1.0, -2.0, 3.0, 0.0, *[0.0] * 6], [4.0] * 10])
    found = masses(values, np.array([4.0, 1.0]), np.full(10, 9.0), np.array([2.0, 5.0]))
    assert found["per nat"].tolist() == [3.0, 8.0]
    assert found["cosine"] == pytest.approx([6 / 10 / 6, 4 / 3])
    assert found["share"] == pytest.approx([0.5, 0.1])


def test_spearmans_correlation_is_scipys_within_its_interval() -> None:
    draw = np.random.default_rng(1)
    one = draw.normal(size=40)
    other = one + draw.normal(size=40)
    found = spearman(one, other)
    assert found.value == pytest.approx(spearmanr(one, other).statistic)
    low, value, high = (each or 0.0 for each in (found.low, found.value, found.high))
    assert low < value < high
    assert found.n == 40
    assert spearman(one, np.ones(40)).value is None


@pytest.fixture(scope="module")
def work(
    checkpoint: Checkpoint, artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model's folder, an artifact for it, documents, and collections with responses."""
    folder = tmp_path_factory.mktemp("work")
    # An engine may have packed the fixture's weights away.
    same = tiny_checkpoint()
    same.model.save_pretrained(folder / "model")
    same.tokenizer.save_pretrained(folder / "model")
    artifact.save(folder / "artifact.safetensors")
    write_questions(folder / "documents.jsonl", n=5, seed=3)
    ladder = write_ladder(folder / "ladder", 4, 0)
    chosen = [path for path in ladder if path.stem.startswith(("slope", "linear"))]
    questions = folder / "others.jsonl"
    write_questions(questions, n=6, seed=4)
    files = [
        QuestionsFile(*read_questions(path), folder / "c" / path.stem)
        for path in (*chosen, questions)
    ]
    collect(checkpoint, files, context=Context(max_tokens=4), looks=(PROMPT, 4), max_length=512)
    return folder


def asked(work: Path, *more: str) -> list[str]:
    sets = [f"{name}-{size}" for name in ("slope", "linear") for size in ("small", "large")]
    return [
        *("influence", str(work / "documents.jsonl")),
        *("--artifact", str(work / "artifact.safetensors")),
        *("--procedures", *(str(work / "c" / name) for name in sets)),
        *("--queries", str(work / "c" / "others")),
        *("--model", str(work / "model"), "--device", "cpu"),
        *more,
    ]


def test_the_command_says_and_writes_what_it_finds(
    work: Path, artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    drawn = tmp_path / "drawn.png"
    assert main(asked(work, "--out", str(out), "--picture", str(drawn))) == 0
    said = capsys.readouterr().out
    assert said.startswith("5 documents, 22 queries\n\nlayers: mlp\n")
    assert "layers: all" in said
    assert drawn.read_bytes().startswith(b"\x89PNG")
    written = json.loads((out / "influence.json").read_text())
    assert [each[1] for each in written["queries"]].count("others") == 6
    (others,) = read_collections([work / "c" / "others"])
    scores = scores_of(artifact.detector, Pool.whole(others))
    assert [each[3] for each in written["queries"][-6:]] == pytest.approx(scores.tolist())
    values = np.array(written["influence"]["all"]["pairs"])
    assert values.shape == (22, 5)
    assert not np.allclose(values, written["influence"]["mlp"]["pairs"])
    for each in written["findings"].values():
        assert each["procedures"]["difference"]["n"] == 16
        assert {name: found["per nat"]["n"] for name, found in each["masses"].items()} == {
            "procedures": 16,
            "questions": 6,
            "others": 6,
        }
        assert 0 < each["negative"] < 1
    # A second run reads what is there, and says the same.
    (out / "influence.json").unlink()
    assert main(asked(work, "--out", str(out))) == 0
    assert capsys.readouterr().out == said
    assert json.loads((out / "influence.json").read_text()) == written


def test_what_cannot_be_used_is_told(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "out"))
    documents_only = asked(work)[:4]
    assert main([*documents_only, *out]) == 2
    assert "name collections after --procedures or --queries" in capsys.readouterr().err
    assert main(asked(work, *out, "--picture", str(tmp_path / "drawn.gif"))) == 2
    assert "end its name in .png or .svg" in capsys.readouterr().err
    other = tiny_checkpoint(seed=1, n_layers=2)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    assert main(asked(work, *out, "--model", str(tmp_path / "other"))) == 2
    assert "which" in capsys.readouterr().err
