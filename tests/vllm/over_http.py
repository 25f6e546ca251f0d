"""The guard over vLLM beside vLLM's own server, through the port: tokens a second, in turns.

    $ OMP_NUM_THREADS=1 .venv/vllm/bin/python -m tests.vllm.over_http 10

Three servers of the default model in bfloat16, each on one thread: TrajGuard's service over vLLM,
vLLM's own with the plugin, and vLLM's own bare. In every round each answers the same 64 short
prompts to 8 clients, in rotating order; all of them are in scope, and none ends before its 24
tokens. Of a round counts the ratio of its seconds, and of the processor's seconds that a server's
processes had in it, which other work on the machine moves less. Nothing is read from a prefix
cache, since the same prompts come again every round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx2
import psutil

from calibration.generate import generate
from detector.engine.model.checkpoint import source_of
from detector.engine.model.default_model import NAME
from tests.vllm.plugin import ROOT, free_port, served

N_CLIENTS, N_PROMPTS, N_NEW = 8, 64, 24
N_SLOTS, MAX_LENGTH = 16, 512
SERVICE, PLUGIN, BARE = "TrajGuard over vLLM", "vLLM with the plugin", "bare vLLM"
_WAIT = 600


@dataclass
class Served:
    """One of the servers, and what its rounds took: seconds, and the processor's."""

    name: str
    address: str
    model: str
    processes: list[psutil.Process]
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)

    def round(self, client: httpx2.Client, questions: Sequence[str]) -> None:
        cpu, began = self.cpu(), time.perf_counter()
        with ThreadPoolExecutor(N_CLIENTS) as pool:
            counts = list(pool.map(lambda question: self._ask(client, question), questions))
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(self.cpu() - cpu)
        if counts != [N_NEW] * len(questions):
            raise RuntimeError(f"{self.name} gave {sorted(set(counts))} tokens, not {N_NEW}")

    def _ask(self, client: httpx2.Client, question: str) -> int:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": N_NEW,
            "temperature": 0,
            "ignore_eos": True,
        }
        answer = client.post(f"{self.address}/v1/chat/completions", json=body)
        answer.raise_for_status()
        n_tokens: int = answer.json()["usage"]["completion_tokens"]
        return n_tokens


def ratios(numbers: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and most of the rounds' own."""
    rounds = sorted(one / other for one, other in zip(numbers, others, strict=True))
    return statistics.median(rounds), rounds[0], rounds[-1]


@contextmanager
def service() -> Iterator[tuple[str, int]]:
    """TrajGuard's own, once it is ready: its address, and its process."""
    port = free_port()
    settings = {
        "ENGINE": "vllm",
        "PORT": port,
        "DTYPE": "bfloat16",
        "MAX_LENGTH": MAX_LENGTH,
        "N_SLOTS": N_SLOTS,
        "CANARIES": 0,
        "VLLM_OPTIONS": '{"enable_prefix_caching": false}',
    }
    environment = {f"TRAJGUARD_{name}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "app"],
        env={**os.environ, **environment, "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx2.get(f"{address}/readyz").status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            time.sleep(0.5)
        else:
            raise RuntimeError("the service did not become ready")
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def measure(rounds: int) -> list[Served]:
    source = source_of(NAME)
    arguments = ["--dtype", "bfloat16", "--max-model-len", str(MAX_LENGTH + 1)]
    arguments += ["--max-num-seqs", str(N_SLOTS + 8), "--max-num-batched-tokens", "512"]
    arguments += ["--no-enable-prefix-caching", "--disable-uvicorn-access-log"]
    questions = in_scope(N_PROMPTS)
    with ExitStack() as stack:
        servers: list[Served] = []
        for name, guarded in ((BARE, False), (PLUGIN, True)):
            address, pid = stack.enter_context(served(source, *arguments, guarded=guarded))
            servers.append(Served(name, address, source, _processes(pid)))
        address, pid = stack.enter_context(service())
        servers.append(Served(SERVICE, address, NAME, _processes(pid)))
        client = stack.enter_context(httpx2.Client(timeout=_WAIT))
        for number in range(-1, rounds):
            turn = number % len(servers)
            for server in [*servers[turn:], *servers[:turn]]:
                server.round(client, questions)
            if number < 0:  # the first is for warming up
                for server in servers:
                    server.seconds.clear()
                    server.cpu_seconds.clear()
    return servers


def _processes(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def in_scope(n: int) -> list[str]:
    """Generated word problems: whoever is refused gives no tokens, and fails the run."""
    return [question for question, _ in generate(n, seed=14)]


def main(rounds: int) -> None:
    servers = measure(rounds)
    bare = next(server for server in servers if server.name == BARE)
    print("| | tokens/s | / bare vLLM | the processor's seconds | / bare vLLM's |")
    print("|---|---:|---:|---:|---:|")
    for server in servers:
        speed = N_PROMPTS * N_NEW / statistics.median(server.seconds)
        faster = ratios(bare.seconds, server.seconds)
        cpu = ratios(server.cpu_seconds, bare.cpu_seconds)
        print(
            f"| {server.name} | {speed:.1f} | {faster[0]:.3f} ({faster[1]:.2f} to {faster[2]:.2f}) "
            f"| {statistics.median(server.cpu_seconds):.1f} "
            f"| {cpu[0]:.3f} ({cpu[1]:.2f} to {cpu[2]:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
