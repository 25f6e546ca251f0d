"""Recorded decode steps: the same tokens and trajectories as steps that are run."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from detector.backend import Ask, Sampling
from detector.engine import runner, slot_runner
from detector.engine.engine import Engine
from detector.engine.kernels import graphs
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.self_test import self_test
from detector.errors import SelfTestError
from detector.trajectory import PROMPT
from tests.detector.plain import (
    LOOKS,
    Plain,
    Seen,
    assert_equal_to_plain,
    drain,
    mixed_requests,
    plain_greedy,
    prompt,
)
from tests.detector.tape import Taping
from tests.detector.test_families import IN_SLOTS, tiny_of
from tests.tiny import tiny_checkpoint


@pytest.fixture
def taping(monkeypatch: pytest.MonkeyPatch) -> Taping:
    taping = Taping()
    monkeypatch.setattr(runner, "recorder", taping.recorder)
    monkeypatch.setattr(slot_runner, "_LENGTH_BUCKET_RECORDED", 64)
    return taping


def engine_of(checkpoint: Checkpoint, **options: Any) -> Engine:
    return Engine(checkpoint, max_length=256, prefill_tokens=64, **options)


@pytest.mark.parametrize("n_slots", [1, 3, 8])
def test_replayed_steps_equal_plain_transformers(taping: Taping, n_slots: int) -> None:
    checkpoint = tiny_checkpoint()
    seen = Seen()
    engine = engine_of(checkpoint, looks=LOOKS, observer=seen, n_slots=n_slots)
    requests = mixed_requests()
    for request in requests:
        engine.submit(request)
    leaving = Ask(prompt(20, 90), max_tokens=50)
    engine.submit(leaving)
    tokens: dict[Ask, list[int]] = defaultdict(list)
    while engine.busy:
        for step in engine.step():
            if step.token is not None:
                tokens[step.ask].append(step.token)
        if len(tokens[leaving]) == 3:
            engine.cancel(leaving)
    engine.close()
    assert_equal_to_plain(Plain(checkpoint), seen, requests, tokens)
    # Batches of 1, 2, 4, ... and slots of 64, 128, 192 positions.
    assert 1 <= taping.n_recorded <= 3 * (1 + n_slots.bit_length())
    assert taping.n_replayed > 2 * taping.n_recorded


@pytest.mark.parametrize("family", sorted(IN_SLOTS))
def test_every_family_in_slots_is_recorded(
    taping: Taping, caplog: pytest.LogCaptureFixture, family: str
) -> None:
    self_test(tiny_of(IN_SLOTS[family]))
    assert "cannot be recorded" not in caplog.text
    assert taping.n_replayed >= 5


def test_an_unguarded_engine_replays_steps_that_collect_nothing(taping: Taping) -> None:
    checkpoint = tiny_checkpoint()
    for looks in ((), (PROMPT,)):
        engine = engine_of(checkpoint, looks=looks, observer=Seen(), n_slots=2)
        request = Ask(prompt(9, 1), max_tokens=12)
        engine.submit(request)
        tokens, _ = drain(engine)
        assert not engine._collector.sums[:, 1].any()
        engine.close()
        assert tokens[request] == plain_greedy(checkpoint, request.prompt, 12)
    assert taping.n_recorded == 2


def test_sampling_and_penalties_are_as_without_recording(taping: Taping) -> None:
    def generated() -> list[list[int]]:
        engine = engine_of(tiny_checkpoint(), n_slots=4)
        requests = [
            Ask(prompt(9, 1), max_tokens=9, sampling=Sampling(temperature=0.9), seed=5),
            Ask(prompt(4, 2), max_tokens=9, sampling=Sampling(repetition_penalty=1.4)),
            Ask(prompt(30, 3), max_tokens=9, sampling=Sampling(frequency_penalty=1.0)),
        ]
        engine.submit(*requests)
        tokens, _ = drain(engine)
        engine.close()
        return [tokens[request] for request in requests]

    recorded = generated()
    assert taping.n_replayed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "recorder", lambda device: None)
        assert recorded == generated()


def test_a_step_that_cannot_be_recorded_is_run(
    taping: Taping, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tiny_checkpoint()
    layer = checkpoint.model.get_decoder().layers[0].mlp
    plain = layer.forward

    def waiting(states: torch.Tensor) -> torch.Tensor:
        """Reads a number of the device, as routers of some mixtures of experts do."""
        if states.abs().amax().item() > 1e9:
            raise AssertionError
        result: torch.Tensor = plain(states)
        return result

    monkeypatch.setattr(layer, "forward", waiting)
    seen = Seen()
    engine = engine_of(checkpoint, looks=LOOKS, observer=seen, n_slots=3)
    requests = mixed_requests()
    for request in requests:
        engine.submit(request)
    tokens, _ = drain(engine)
    engine.close()
    assert caplog.text.count("decode steps cannot be recorded (RuntimeError)") == 1
    assert taping.n_replayed == 0
    assert_equal_to_plain(Plain(checkpoint), seen, requests, tokens)


def test_the_self_test_sees_a_number_that_a_recording_froze(
    taping: Taping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step whose tokens pass through Python is right when it is run, and wrong when replayed."""
    checkpoint = tiny_of(LlamaConfig(**IN_SLOTS["llama"].to_diff_dict()))
    embedding = checkpoint.model.get_input_embeddings()
    plain = embedding.forward

    def through_python(ids: torch.Tensor) -> torch.Tensor:
        rows = zip(ids.flatten().split(1), ids.flatten().tolist(), strict=True)
        same = torch.cat([row * 0 + token for row, token in rows]).view_as(ids)
        states: torch.Tensor = plain(same)
        return states

    monkeypatch.setattr(embedding, "forward", through_python)
    with pytest.raises(SelfTestError):
        self_test(checkpoint)
    assert taping.n_replayed
    monkeypatch.setattr(runner, "recorder", lambda device: None)
    self_test(checkpoint)


def test_only_cuda_records() -> None:
    assert graphs.recorder(torch.device("cpu")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
def test_cuda_graphs(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tiny_checkpoint()
    on_gpu = Checkpoint.of("tiny", checkpoint.model.to("cuda"), checkpoint.tokenizer)  # type: ignore[arg-type]
    self_test(on_gpu)
    assert "cannot be recorded" not in caplog.text
