"""Overload, by clients that do as they are told: `python -m tests.faults.overload`.

Serves the default model in a process of its own with a short queue, measures its capacity by as
many clients as it has slots, and then lets 64 clients ask for minutes on end, of whom every third
asks something out of scope and each waits as long as `Retry-After` says. Prints what was
answered, how long refusals waited beside a refusal alone, tokens a second beside the capacity,
and resident memory. Ends with 1 where a request is lost, or fails otherwise than by a 429 or 503
with `Retry-After`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx2

from calibration.generate import generate
from tests.faults.hostile import CHAT, service

N_SLOTS, N_QUEUE, N_CLIENTS = 8, 16, 64
MAX_TOKENS = 48
OTHER = (
    "Prove that the square root of every prime is irrational, and write the proof in LaTeX. ({})",
    "Write a Python class for a binary search tree with deletion, and test it. ({})",
    "Compute the residues of $e^z / (z^2 + {})$ and integrate it along $|z| = 9$.",
)


@dataclass(frozen=True)
class Answer:
    """One request: its status, whether it was refused, when it ended and the seconds it took."""

    status: int
    refused: bool
    ended: float
    seconds: float
    n_tokens: int
    retry_after: float


async def ask(client: httpx2.AsyncClient, text: str) -> Answer:
    began = time.perf_counter()
    body = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": MAX_TOKENS,
        "ignore_eos": True,
    }
    try:
        response = await client.post(CHAT, json=body)
    except httpx2.HTTPError:
        return Answer(0, False, time.perf_counter(), 0.0, 0, 0.0)
    ended = time.perf_counter()
    shown = response.json() if response.status_code == 200 else {}
    return Answer(
        response.status_code,
        bool(shown) and shown["choices"][0]["finish_reason"] == "content_filter",
        ended,
        ended - began,
        shown["usage"]["completion_tokens"] if shown else 0,
        float(response.headers.get("retry-after", 0)),
    )


async def clients(
    client: httpx2.AsyncClient, n: int, seconds: float, every: int
) -> tuple[list[Answer], float]:
    """`n` clients that ask one question after the other; each `every`-th is out of scope."""
    questions = [question for question, _ in generate(4000, seed=0)]
    until = time.perf_counter() + seconds
    answers: list[Answer] = []
    number = 0

    async def one() -> None:
        nonlocal number
        while time.perf_counter() < until:
            number += 1
            other = every and number % every == 0
            text = OTHER[number % 3].format(number) if other else questions[number % 4000]
            answer = await ask(client, text)
            answers.append(answer)
            await asyncio.sleep(answer.retry_after)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(n)))
    return answers, time.perf_counter() - began


async def measure(port: int, pid: int, minutes: float) -> bool:
    limits = httpx2.Limits(max_connections=N_CLIENTS, max_keepalive_connections=N_CLIENTS)
    base = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=base, timeout=600, limits=limits) as client:
        alone = [await ask(client, OTHER[0].format(n)) for n in range(10)]
        prefill = statistics.median(answer.seconds for answer in alone)
        peak, seconds = await clients(client, N_SLOTS, 40, 0)
        capacity = sum(answer.n_tokens for answer in peak) / seconds
        print(f"a refusal alone: {1000 * prefill:.0f} ms; capacity: {capacity:.0f} tokens/s")
        memory = [resident_mb(pid)]
        answers: list[Answer] = []
        for _ in range(max(1, round(minutes))):
            found, seconds = await clients(client, N_CLIENTS, 60 * min(1, minutes), 3)
            answers += found
            memory.append(resident_mb(pid))
            rate = sum(answer.n_tokens for answer in found) / seconds
            print(f"{rate:.0f} tokens/s, {memory[-1]} MB, {told(found)}", flush=True)
    bad = [
        answer
        for answer in answers
        if answer.status not in (200, 429, 503) or (answer.status != 200 and not answer.retry_after)
    ]
    print(f"of {len(answers)} requests {len(bad)} were lost or failed; memory {memory} MB")
    return not bad


def told(answers: list[Answer]) -> str:
    """What became of them, and how long those took which were refused, answered or turned away."""
    statuses = Counter(answer.status for answer in answers)
    kinds = {
        "refused": [a.seconds for a in answers if a.refused],
        "answered": [a.seconds for a in answers if a.status == 200 and not a.refused],
        "429": [a.seconds for a in answers if a.status == 429],
    }
    spans = [
        f"{name} {statistics.median(each):.2f} s (most {max(each):.2f})"
        for name, each in kinds.items()
        if each
    ]
    return f"{dict(statuses)}, {', '.join(spans)}"


def resident_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    flags = ("--n-slots", str(N_SLOTS), "--max-queue", str(N_QUEUE))
    with service(*flags) as served:
        return 0 if asyncio.run(measure(served.port, served.pid, options.minutes)) else 1


if __name__ == "__main__":
    sys.exit(main())
