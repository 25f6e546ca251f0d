"""K answers asked and scored, and what an NLI model says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from detector.answering import Answering
from detector.answers import clusters_of
from detector.backend import Ask, Step
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.nli import Nli
from detector.engine.model.text import Text
from detector.engine_record import EngineRecord
from detector.errors import ArtifactMismatchError, CheckpointError, EngineError
from detector.opinion_record import OpinionRecord, OpinionScores
from detector.uncertainty import coherent_persuasion, semantic_entropy
from tests.opined import ASKING, EXAMPLE, tiny_nli
from tests.tiny import tiny_checkpoint

QUESTION = [{"role": "user", "content": "How many eggs?"}]


def run(engine: Engine, asks: Sequence[Ask]) -> list[Step]:
    steps: list[Step] = []
    engine.submit(*asks)
    while engine.busy:
        steps += engine.step()
    return steps


def test_scores_are_those_of_what_was_answered(checkpoint: Checkpoint) -> None:
    """Against distributions and likelihoods of a plain pass over each answer."""
    tiny = tiny_checkpoint()
    text = Text(tiny.tokenizer)
    answering = Answering(text, ASKING, QUESTION, "typed", persuasion=True)
    engine = Engine(tiny, n_slots=8, max_length=512)
    steps = run(engine, answering.asks)
    for step in steps:
        answering.push(step)
    engine.close()
    tokens: dict[Ask, list[int]] = {ask: [] for ask in answering.asks}
    for step in steps:
        tokens[step.ask] += [] if step.token is None else [step.token]
    averages, likelihoods = [], []
    for ask in answering.asks:
        ids = torch.tensor([[*ask.prompt, *tokens[ask][:-1]]])
        with torch.inference_mode():
            logits = checkpoint.model(ids).logits[0, len(ask.prompt) - 1 :]
        averages.append(logits.softmax(-1).mean(0))
        rows = torch.arange(len(tokens[ask]))
        likelihoods.append(float(logits.log_softmax(-1)[rows, tokens[ask]].mean()))
    plain, shown = answering.texts(), answering.texts(with_example=True)
    n = ASKING.n_answers
    assert answering.score("uncertainty") == pytest.approx(
        semantic_entropy(likelihoods[:n], clusters_of(plain)), abs=1e-5
    )
    assert answering.score("persuasion") == pytest.approx(
        coherent_persuasion(
            torch.stack(averages[n:]),
            clusters_of(shown),
            torch.stack(averages[:n]),
            clusters_of(plain),
        ),
        abs=1e-4,
    )
    read = sum(len(ask.prompt) for ask in answering.asks[::n])
    assert answering.n_tokens == read + sum(map(len, tokens.values()))


def test_the_example_stands_before_the_question_and_the_instruction_behind() -> None:
    text = Text(tiny_checkpoint().tokenizer)
    answering = Answering(text, ASKING, QUESTION, "typed", persuasion=True)
    plain, with_example = answering.asks[0].prompt, answering.asks[ASKING.n_answers].prompt
    asked = f"{QUESTION[0]['content']}\n\n{ASKING.instruction}"
    assert plain == text.encode_conversation([{"role": "user", "content": asked}])
    assert with_example == text.encode_conversation(
        [
            {"role": "user", "content": f"{EXAMPLE.question}\n\n{ASKING.instruction}"},
            {"role": "assistant", "content": EXAMPLE.answer},
            {"role": "user", "content": asked},
        ]
    )


def test_one_question_is_asked_alike_however_it_is_written() -> None:
    text = Text(tiny_checkpoint().tokenizer)
    written = [{"role": "user", "content": "**How many**  eggs?"}]
    one, other = (
        Answering(text, ASKING, each, text.text, persuasion=False).asks
        for each in (QUESTION, written)
    )
    assert [ask.prompt for ask in one] == [ask.prompt for ask in other]
    assert [ask.seed for ask in one] == [ask.seed for ask in other]
    assert not any(ask.averaged for ask in one)


def test_an_answer_that_cannot_be_had_is_told() -> None:
    text = Text(tiny_checkpoint().tokenizer)
    answering = Answering(text, ASKING, QUESTION, "typed", persuasion=False)
    with pytest.raises(EngineError, match="failed"):
        answering.push(Step(answering.asks[0], finish="failed"))


def test_an_engine_that_tells_no_distributions_is_told() -> None:
    tiny = tiny_checkpoint()
    answering = Answering(Text(tiny.tokenizer), ASKING, QUESTION, "typed", persuasion=True)
    engine = Engine(tiny, n_slots=8, max_length=512)
    for step in run(engine, answering.asks):
        answering.push(Step(step.ask, step.token, step.finish, step.logprobs))
    engine.close()
    with pytest.raises(EngineError, match="no average distribution"):
        answering.score("persuasion")


def test_an_nli_model_tells_entailment_pair_by_pair(tmp_path: Path) -> None:
    nli = Nli(str(tiny_nli(tmp_path)))
    pairs = [(first, second) for first in "abcdef" for second in ("a", "xyz", "no")]
    together = nli(pairs)
    assert together == [nli([pair])[0] for pair in pairs]
    assert set(together) == {True, False}
    assert nli.identity.startswith(f"{tmp_path.name}@")


def test_a_model_without_entailment_is_refused(tmp_path: Path) -> None:
    folder = tiny_nli(tmp_path, labels=("good", "bad"))
    with pytest.raises(CheckpointError, match="none that is 'entailment'"):
        Nli(str(folder))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        Nli(str(tmp_path / "nowhere"))


def test_a_record_holds_where_it_was_made_alone() -> None:
    scores = OpinionScores(uncertainty=(0.0,), persuasion=(0.0,))
    record = OpinionRecord(
        asking=ASKING,
        population="flagged",
        alpha=0.05,
        calibration=scores,
        holdout=scores,
        n_holdout=1,
        dtype="bfloat16",
        engine=EngineRecord(device="cpu"),
        sources={},
    )
    record.require("bfloat16", EngineRecord(device="cpu"), "")
    for dtype, engine, nli in (
        ("float32", EngineRecord(device="cpu"), ""),
        ("bfloat16", EngineRecord(device="cuda"), ""),
        ("bfloat16", EngineRecord(name="vllm", device="cpu"), ""),
        ("bfloat16", EngineRecord(device="cpu"), "other"),
    ):
        with pytest.raises(ArtifactMismatchError):
            record.require(dtype, engine, nli)
