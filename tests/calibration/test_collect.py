"""Collecting: draws as serving makes them, one engine for all files, tokens as they were drawn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from calibration.collect import QuestionsFile, collect
from calibration.collection import CollectionFolder
from calibration.fit import FitOptions, fit
from calibration.generate import generate, write_questions
from calibration.questions import read_questions
from detector.backend import Ask, Sampling
from detector.engine.engine import Engine
from detector.engine.model.text import Text
from detector.manifest import Context
from detector.trajectory import PROMPT, QUESTION, Look
from tests.tiny import tiny_checkpoint

SAMPLED = Context(sampling=Sampling(temperature=1.0), max_tokens=3)
ASKED = [{"role": "user", "content": "What is 2 + 2?"}]


def questions_file(path: Path, n: int, seed: int = 0) -> QuestionsFile:
    write_questions(path, n, seed)
    return QuestionsFile(*read_questions(path), path.with_suffix(""))


def test_sampled_calibration_holds_for_other_draws(tmp_path: Path) -> None:
    """What is served later draws with seeds of its own, and the threshold holds for it."""
    checkpoint = tiny_checkpoint()
    file = questions_file(tmp_path / "q.jsonl", 600)
    collect(checkpoint, [file], context=SAMPLED, looks=(3,), max_length=512)
    detector = fit(
        [file.folder], "tests", FitOptions(rank=8, alpha=0.1, known_templates=True)
    ).detector
    scores: list[float] = []

    def observe(look: Look, requests: Sequence[Ask], rows: torch.Tensor) -> list[bool]:
        scores.extend(score.score for (score,) in detector.score(look, rows))
        return [False] * len(requests)

    engine = Engine(checkpoint, looks={3}, observer=observe, n_slots=32, max_length=512)
    text = Text(checkpoint.tokenizer)
    for seed, (question, _) in enumerate(generate(200, seed=9)):
        prompt = text.encode_question([question]).tokens
        engine.submit(Ask(prompt, max_tokens=3, sampling=SAMPLED.sampling, seed=10**6 + seed))
    while engine.busy:
        engine.step()
    engine.close()
    n = len(detector.calibration)
    # A response that ends before the look is not flagged, neither here nor in calibration.
    rate = sum(score > detector.threshold for score in scores) / 200
    # The rate follows Beta(k, n + 1 - k) around 0.1, with 600 x 30 % = 180 conformal questions a
    # standard deviation of 0.022; of 200 questions it is seen with one of 0.021. Four of 0.031.
    assert n == pytest.approx(180, abs=45)
    assert len(scores) > 100
    assert rate == pytest.approx(0.1, abs=4 * 0.031)


def test_every_question_draws_by_itself_and_alike_in_every_run(tmp_path: Path) -> None:
    """Questions that are one to the model, though not by their keys, are answered apart."""
    rows = [{"messages": [{"role": "system", "content": str(n)}, *ASKED]} for n in range(40)]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    runs = []
    for name in ("a", "b"):
        file = QuestionsFile(*read_questions(path), tmp_path / name)
        collect(tiny_checkpoint(), [file], context=SAMPLED, looks=(3,), max_length=512)
        found = CollectionFolder(file.folder).read()
        runs.append(dict(zip(found.keys, found.tokens, strict=True)))
    assert runs[0] == runs[1]
    # With one seed for all they would be one and the same.
    assert Counter(runs[0].values()).most_common(1)[0][1] < 20


def test_one_engine_collects_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[Engine] = []
    make = Engine.__init__

    def counted(self: Engine, *args: Any, **kwargs: Any) -> None:
        engines.append(self)
        make(self, *args, **kwargs)

    monkeypatch.setattr(Engine, "__init__", counted)
    checkpoint = tiny_checkpoint()
    # The later file is the larger one, and has to fit the queue too.
    files = [questions_file(tmp_path / f"{n}.jsonl", n, seed=n) for n in (5, 90)]
    collect(checkpoint, files, context=Context(max_tokens=2), looks=(PROMPT, 2), max_length=512)
    assert len(engines) == 1
    assert [len(CollectionFolder(file.folder).read().keys) for file in files] == [5, 90]
    # Nothing of it is left on the model: another engine may run that.
    Engine(checkpoint, max_length=64).close()


def trajectories(
    tmp_path: Path, name: str, messages: list[dict[str, str]], context: Context
) -> Any:
    path = tmp_path / f"{name}.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    file = QuestionsFile(*read_questions(path), tmp_path / name)
    looks = (QUESTION, PROMPT) if context.max_tokens == 1 else (QUESTION, PROMPT, 3)
    collect(tiny_checkpoint(), [file], context=context, looks=looks, max_length=64)
    found = CollectionFolder(file.folder).read()
    return torch.stack([found.at(look)[plane] for look in looks for plane in range(7)]), found


@pytest.mark.parametrize("max_tokens", [1, 4])
def test_what_is_judged_is_canonical_and_in_context(tmp_path: Path, max_tokens: int) -> None:
    context = Context(max_tokens=max_tokens)
    plain, answered = trajectories(tmp_path, "plain", ASKED, context)
    shouted = [{"role": "user", "content": "**WHAT IS** 2 +\n2"}]
    system = [{"role": "system", "content": "Teach."}, *ASKED]
    same, apart = trajectories(tmp_path, "shouted", shouted, context)
    assert torch.allclose(same[:14], plain[:14], atol=1e-4)
    assert torch.allclose(trajectories(tmp_path, "system", system, context)[0], plain, atol=1e-4)
    if max_tokens > 1:
        # The response is to what was typed.
        assert not torch.allclose(same[14:], plain[14:], atol=1e-2)
        assert apart.tokens != answered.tokens
    typed = context.model_copy(update={"text": "typed"})
    assert not torch.allclose(trajectories(tmp_path, "typed", shouted, typed)[0], same, atol=1e-2)
    before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]
    follow_up = trajectories(tmp_path, "after", [*before, *ASKED], context)[0]
    assert not torch.allclose(follow_up[:7], plain[:7], atol=1e-2)
    # What does not fit is left out, oldest first.
    long = [{"role": "user", "content": "x" * 60}, *before[1:], *ASKED]
    assert torch.allclose(trajectories(tmp_path, "long", long, context)[0], plain, atol=1e-4)


def test_collections_keep_the_tokens_drawn(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    text = Text(checkpoint.tokenizer)
    file = questions_file(tmp_path / "q.jsonl", 40)
    context = Context(sampling=Sampling(temperature=1.0), max_tokens=100)
    collect(checkpoint, [file], context=context, looks=(3,), max_length=512)
    found = CollectionFolder(file.folder).read()
    assert any(tokens[-1] == 0 for tokens in found.tokens)
    assert all(len(tokens) == 100 or tokens[-1] == 0 for tokens in found.tokens)
    assert [text.decode(tokens) for tokens in found.tokens] == list(found.responses)
    prompts = QuestionsFile(file.questions, file.source, tmp_path / "prompts")
    collect(checkpoint, [prompts], context=Context(), looks=(PROMPT,), max_length=512)
    assert set(CollectionFolder(prompts.folder).read().tokens) == {()}
