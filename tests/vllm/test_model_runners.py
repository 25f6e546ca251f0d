"""How steps of vLLM's two model runners are read, and where they draw.

V2 needs a GPU. Without one its steps are stood in for by vLLM's own classes of a batch and of a
step's state, and a sampler that draws the best token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_runner import ExecuteModelState
from vllm.v1.worker.gpu.sample.sampler import Sampler

from detector.backend import Ask, Sampling
from detector.engine.engine import Engine
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.prefill import Row
from detector.engine.run import Run
from detector.trajectory import PROMPT_MEAN
from detector.vllm.model_runners import model_runner
from detector.vllm.pooling import Part, Pool
from tests.detector.plain import LOOKS, Seen, drain
from tests.vllm.opening import opened, run, tiny, tokens_of

N_PLANES, WIDTH, N_TOKENS = 3, 4, 7


class V2Runner:
    """What is read of V2's runner."""

    def __init__(self) -> None:
        self.sampler: Any = object.__new__(Sampler)
        self.sampler.sample = lambda logits, *_: logits.argmax(-1)
        self.execute_model_state: ExecuteModelState | None = None

    def forward(self, parts: dict[str, tuple[int, int]], planes: list[Tensor]) -> None:
        """Ends as V2's forward pass does: `parts` has positions start..stop-1 by request."""
        lengths = [stop - start for start, stop in parts.values()]
        batch: Any = object.__new__(InputBatch)
        batch.req_ids = list(parts)
        # Padded to the size of a CUDA graph, as V2 pads it.
        batch.query_start_loc_np = np.cumsum([0, *lengths, 0, 0], dtype=np.int32)
        batch.num_computed_tokens_np = np.array([start for start, _ in parts.values()], np.int32)
        left = dict.fromkeys(ExecuteModelState._fields)
        self.execute_model_state = ExecuteModelState(
            **{**left, "input_batch": batch, "aux_hidden_states": planes}
        )

    def sample_tokens(self, logits: Tensor) -> Tensor:
        self.execute_model_state = None  # V2 lets go of it before it draws
        drawn: Tensor = self.sampler.sample(logits, "positions", "seeds")
        return drawn


def random_planes(n_rows: int) -> list[Tensor]:
    return list(torch.randn(N_PLANES, n_rows, WIDTH, generator=torch.Generator().manual_seed(0)))


def test_a_step_of_v2_is_read() -> None:
    runner = V2Runner()
    reader = model_runner(runner, is_v2=True)
    runner.forward({"b": (30, 31), "a": (0, 5)}, random_planes(6))
    assert list(reader.parts()) == [Part("b", 0, 30, 31), Part("a", 1, 0, 5)]


def test_trajectories_of_v2_are_pooled() -> None:
    """A prompt in two parts, beside it one that decodes; then both decode, in graphs of 4 rows."""
    ask = Ask(tuple(range(5)), max_tokens=9)
    row = Row.of(Run(ask), ask.prompt, {PROMPT_MEAN}, starts=True)
    runner = V2Runner()
    reader = model_runner(runner, is_v2=True)
    pool = Pool(N_PLANES, WIDTH, 4, torch.device("cpu"))
    pool.watch("a", row, sums=True)
    seen = []
    steps: list[dict[str, tuple[int, int]]] = [
        {"a": (0, 3)},
        {"b": (30, 31), "a": (3, 5)},
        {"a": (5, 6), "b": (31, 32)},
    ]
    for parts in steps:
        rows = sum(stop - start for start, stop in parts.values())
        planes = random_planes(max(4, rows))
        runner.forward(parts, planes)
        first = next(part.row for part in reader.parts() if part.name == "a")
        n = parts["a"][1] - parts["a"][0]
        seen.append(torch.stack(planes)[:, first : first + n])
        pool.collect(reader.parts(), planes)
    prompt = torch.cat(seen[:2], dim=1)
    assert torch.allclose(pool.means("a", row.looks[PROMPT_MEAN]), prompt.mean(1))
    expected = (prompt[:, -1] + seen[2][:, 0]) / 2
    assert torch.allclose(pool.running_means(["a"], [2])[0], expected)


def test_v2_draws_from_logits_that_were_changed() -> None:
    runner = V2Runner()
    reader = model_runner(runner, is_v2=True)
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 1.0]])
    told = []

    def forbid_the_best(names: list[str], logits: Tensor, generators: object) -> None:
        told.append((names, generators))
        logits[0, 2] = -torch.inf

    runner.forward({"a": (0, 1), "b": (4, 5)}, random_planes(2))
    with reader.drawing(forbid_the_best):
        assert runner.sample_tokens(logits.clone()).tolist() == [1, 1]
    assert told == [(["a", "b"], None)]
    # Nobody asks of the runs by which V2 warms itself up.
    assert runner.sample_tokens(logits.clone()).tolist() == [2, 1]
    assert len(told) == 1


def test_a_step_that_failed_draws_nothing() -> None:
    reader = model_runner(V2Runner(), is_v2=True)
    with reader.drawing(lambda *_: pytest.fail("nothing has run")):
        pass


def test_layers_that_add_in_place_leave_the_embedding_as_it_was() -> None:
    """As those on CUDA do, and those on CPUs do not."""
    backend = opened(tiny(), looks=LOOKS)
    try:
        holder: Any = backend._worker.model_runner.model.model
        states = torch.ones(2, 128)
        (plane,) = holder._maybe_add_hidden_state([], 0, states, None)
        states += 1
        assert bool((plane == 1).all())
        (plane,) = holder._maybe_add_hidden_state([], 1, states, states)
        assert bool((plane == 4).all())
    finally:
        backend.close()


def on_gpu() -> Checkpoint:
    checkpoint = tiny()
    model: Any = checkpoint.model
    model.to("cuda")
    return Checkpoint.of("tiny", model, checkpoint.tokenizer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
@pytest.mark.parametrize("eager", [False, True], ids=["graphs", "eager"])
def test_v2_on_a_gpu(eager: bool) -> None:
    """Tokens and trajectories of V2, with CUDA graphs and without, are the own engine's."""
    asks = [
        Ask(tuple(range(3, 3 + n)), max_tokens=12, sampling=Sampling(ignore_eos=True))
        for n in (5, 9, 30)
    ]
    own, theirs = Seen(), Seen()
    # An engine takes the weights of its model apart: vLLM gets another like it.
    engine = Engine(on_gpu(), looks=LOOKS, observer=own)
    engine.submit(*asks)
    expected, _ = drain(engine)
    engine.close()
    graphs = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    options = {"enforce_eager": True} if eager else {"compilation_config": graphs}
    backend = opened(on_gpu(), looks=LOOKS, observer=theirs, options=options)
    try:
        assert backend._worker.use_v2_model_runner
        told = run(backend, *asks)
        assert {ask: tokens_of(steps) for ask, steps in told.items()} == expected
    finally:
        backend.close()
    assert own.trajectories.keys() == theirs.trajectories.keys()
    apart = {
        key[1]: float((theirs.trajectories[key] - trajectory).norm() / trajectory.norm())
        for key, trajectory in own.trajectories.items()
    }
    # The attention of another library sums in another order, and in tf32.
    assert max(apart.values()) <= 1e-3, apart
