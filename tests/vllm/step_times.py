"""What the guard costs a decode step of vLLM on a GPU, with CUDA graphs: 7B-shaped, random weights.

    $ .venv/vllm/bin/python -m tests.vllm.step_times 7b 1 8 32 128

Engines of vLLM one after another in this process, for two of them don't go together: as vLLM runs
by itself, its steps one after another; with the states of all layers out of its model; TrajGuard's
backend on that without looks and guarded at every look; the first once more, which says how much
of a difference is chance; and as vLLM runs by default, its steps overlapping (asynchronous
scheduling). Milliseconds a step: the mean over the first 32 steps in which all requests decode,
with three looks among them, and over the 96 after these, without a look; the least of several runs.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import truediv
from typing import Any

import torch
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind

from calibration.bench.speed.contenders import ANY_TOKEN
from calibration.bench.speed.floor import SHAPES
from calibration.bench.speed.throughput import EVERY_LOOK
from detector.backend import Ask
from detector.detector import Detector
from detector.fitted_look import Part
from detector.judge import Judge
from detector.planes import Planes
from detector.vllm.backend import VllmBackend
from detector.vllm.opening import ENVIRONMENT
from detector.vllm.worker import NAME

N_PROMPT = 40
STRETCHES = (32, 96)
N_RUNS = 4
N_TOKENS = sum(STRETCHES) + 16
RANK = 128

Step = Callable[[], object]


@contextmanager
def engine(shape: str, n: int, **options: Any) -> Iterator[LLMEngine]:
    """Of random weights, with room for `n` requests."""
    with tempfile.TemporaryDirectory() as folder:
        config = SHAPES[shape]
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(folder)
        made = LLMEngine.from_engine_args(
            EngineArgs(
                model=folder,
                load_format="dummy",
                dtype="bfloat16",
                distributed_executor_backend="uni",
                skip_tokenizer_init=True,
                generation_config="vllm",
                disable_log_stats=True,
                enable_prefix_caching=False,
                max_model_len=N_PROMPT + N_TOKENS + 64,
                max_num_seqs=n,
                max_num_batched_tokens=2048,
                additional_config={"trajguard": options.get("worker_cls", "none")},
                **options,
            )
        )
    try:
        yield made
    finally:
        made.engine_core.shutdown()
        del made
        gc.collect()
        cleanup_dist_env_and_memory()


def step_ms(step: Step) -> tuple[float, ...]:
    """The mean over each stretch of steps."""
    step()  # the prompts
    step()
    means = []
    for n_steps in STRETCHES:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(n_steps):
            step()
        torch.cuda.synchronize()
        means.append(1000 * (time.perf_counter() - began) / n_steps)
    return tuple(means)


def least(measure: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
    """Of several runs, after one that warms up."""
    measure()
    runs = [measure() for _ in range(N_RUNS)]
    return tuple(min(times) for times in zip(*runs, strict=True))


def prompts(n: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 40_000, (n, N_PROMPT), generator=generator)
    return [tuple(row) for row in ids.tolist()]


def bare(made: LLMEngine, n: int) -> tuple[float, ...]:
    params = SamplingParams(
        temperature=0.0,
        max_tokens=N_TOKENS,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )
    names = [
        made.add_request(str(number), tokens_input(list(prompt)), params)
        for number, prompt in enumerate(prompts(n))
    ]
    try:
        return step_ms(made.step)
    finally:
        made.abort_request(names, internal=True)
        while made.has_unfinished_requests():
            made.step()


def backend_of(made: LLMEngine, n: int, **observed: Any) -> VllmBackend:
    worker: Any = made.model_executor.driver_worker.worker
    return VllmBackend(
        made,
        worker,
        eos_ids=(),
        looks=observed.get("looks", ()),
        observer=observed.get("observer"),
        n_slots=n,
        n_besides=0,
        max_length=made.model_config.max_model_len - 1,
        max_queue=n,
        max_queue_tokens=n * 4096,
        close=lambda: None,
    )


def ours(backend: VllmBackend, n: int) -> tuple[float, ...]:
    asks = [Ask(prompt, max_tokens=N_TOKENS, sampling=ANY_TOKEN) for prompt in prompts(n)]
    backend.submit(*asks)
    try:
        return step_ms(backend.step)
    finally:
        backend.abandon()


def guard(shape: str) -> Detector:
    """At every look, fitted to random trajectories."""
    config = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)

    def random(n: int) -> Planes:
        size = (n, config.num_hidden_layers + 1, config.hidden_size)
        return Planes.of(torch.randn(size, generator=generator))

    # The same at each look: what it says means nothing, what it costs does.
    fit, conformal = random(RANK + 1), random(40)
    looks = dict.fromkeys(EVERY_LOOK)
    return Detector.fit(
        dict.fromkeys(looks, fit),
        dict.fromkeys(looks, conformal),
        parts=[Part(look) for look in EVERY_LOOK],
        rank=RANK,
    ).to(torch.device("cuda"))


def main(shape: str, sizes: Sequence[int], compiled: bool) -> None:
    os.environ.update(ENVIRONMENT)
    logging.disable(logging.WARNING)
    graphs = {"cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": list(sizes)}
    options: dict[str, Any] = {"compilation_config": graphs if compiled else {"mode": 0, **graphs}}
    most = max(sizes)
    found: dict[str, list[tuple[float, ...]]] = {}
    judge = Judge(guard(shape))

    def note(name: str, measure: Callable[[int], tuple[float, ...]]) -> None:
        found[name] = [least(partial(measure, n)) for n in sizes]
        print(line(name, found[name]), flush=True)

    print(f"{'requests':46}" + "  |  ".join(f"{n:14}" for n in sizes), flush=True)
    with engine(shape, most, async_scheduling=False, **options) as made:
        print("second runner:", made.vllm_config.use_v2_model_runner, flush=True)
        note("vLLM", partial(bare, made))
    with engine(shape, most, async_scheduling=False, worker_cls=NAME, **options) as made:
        note("vLLM, states of all layers out", partial(bare, made))
        backend = backend_of(made, most)
        note("unguarded by TrajGuard", partial(ours, backend))
        with backend.seen_by(judge.looks, judge.observe):
            note("guarded by TrajGuard", partial(ours, backend))
    with engine(shape, most, async_scheduling=False, **options) as made:
        note("vLLM again", partial(bare, made))
    for name, over in (
        ("vLLM again", "vLLM"),
        ("vLLM, states of all layers out", "vLLM"),
        ("guarded by TrajGuard", "vLLM"),
        ("guarded by TrajGuard", "unguarded by TrajGuard"),
    ):
        pairs = zip(found[name], found[over], strict=True)
        print(line(f"{name} / {over}", [tuple(map(truediv, *pair)) for pair in pairs]))
    with engine(shape, most, async_scheduling=True, **options) as made:
        note("vLLM, steps overlapping", partial(bare, made))


def line(name: str, values: Sequence[tuple[float, ...]]) -> str:
    columns = ["  ".join(f"{value:.3f}" for value in each) for each in values]
    return f"{name:46}" + "  |  ".join(columns)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--compiled"]
    main(arguments[0], [int(n) for n in arguments[1:]], "--compiled" in sys.argv)
