"""What an explanation costs: `python -m tests.costs.explain`.

Serves the default model on a loopback port of this process, and times `POST /v1/score` of one
made-up question with `?explain=true` beside the same without, in turn, one request at a time, each
question new. Prints medians and the difference's middle half; and the processor time of placing a
flagged question on the engine's thread, of scoring one beside it, and of explaining one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import count

import httpx2
import torch

from app.main import create_app
from app.settings import Settings
from app.writing.explanation import verdict_explanation
from calibration.generate import generate
from detector.trajectory import PROMPT
from tests.app.clients import loaded_of, served, user


def milliseconds(url: str, client: httpx2.Client, question: str) -> float:
    began = time.perf_counter()
    client.post(url, json={"messages": user(question)}).raise_for_status()
    return 1000 * (time.perf_counter() - began)


def microseconds(work: Callable[[], object]) -> float:
    """Of this thread's processor time, whatever else runs: the median of 500."""
    times = []
    for _ in range(500):
        began = time.thread_time()
        work()
        times.append(1e6 * (time.thread_time() - began))
    return statistics.median(times)


def main(rounds: int) -> None:
    app = create_app(Settings())
    with served(app) as address, httpx2.Client(base_url=address, timeout=120) as client:
        made = (question for seed in count() for question, _ in generate(50, seed=seed))
        plain, explained, more = list[float](), list[float](), list[float]()
        for number in range(-3, rounds):
            question, order = next(made), 1 if number % 2 else -1
            pair = ["/v1/score", "/v1/score?explain=true"][::order]
            took = dict(zip(pair, [milliseconds(url, client, question) for url in pair]))  # noqa: B905
            if number >= 0:  # the first ones warm up
                plain.append(took["/v1/score"])
                explained.append(took["/v1/score?explain=true"])
                more.append(explained[-1] - plain[-1])
        loaded = loaded_of(app)
        detector, manifest = loaded.detector, loaded.manifest
        neighbours = detector.neighbours
        assert neighbours is not None
        states = torch.randn(1, manifest.n_layers + 1, manifest.hidden_size)
        (scores,) = detector.score(PROMPT, states)
        verdict, places = detector.judge(scores), neighbours.place(PROMPT, states)
        assert places is not None
        asked = {PROMPT: places[0]}
        cpu = {
            "scoring": microseconds(lambda: detector.score(PROMPT, states)),
            "placing": microseconds(lambda: neighbours.place(PROMPT, states)),
            "explaining": microseconds(
                lambda: verdict_explanation(loaded, verdict, asked, texts=True)
            ),
        }
    more.sort()
    print(
        f"{rounds} questions, {torch.get_num_threads()} threads: /v1/score "
        f"{statistics.median(plain):.1f} ms, with ?explain=true {statistics.median(explained):.1f} "
        f"ms; {statistics.median(more):+.1f} ms a question ({more[rounds // 4]:+.1f} to "
        f"{more[-1 - rounds // 4]:+.1f} in the middle half)\n"
        f"of the processor, one question at one look: scoring {cpu['scoring']:.0f} µs and, of a "
        f"flagged one alone, placing {cpu['placing']:.0f} µs on the engine's thread; explaining "
        f"{cpu['explaining']:.0f} µs on another, if asked"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    main(parser.parse_args().rounds)
