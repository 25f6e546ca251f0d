"""The number of CPU threads, from pretended machines and containers."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from detector.engine.model import threads
from detector.engine.model.threads import set_threads, usable_cores

CPU = "sys/devices/system/cpu"
GROUPS = "sys/fs/cgroup"


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_without_files_every_cpu_of_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores({0, 1, 5}, tmp_path) == 3


def test_hyperthreads_of_one_core_count_once(tmp_path: Path) -> None:
    siblings = {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}
    root = machine(
        tmp_path,
        {f"{CPU}/cpu{n}/topology/thread_siblings_list": f"{s}\n" for n, s in siblings.items()},
    )
    assert usable_cores(siblings, root) == 2
    assert usable_cores({0, 4}, root) == 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "300000 100000\n"}, 3),
        # Half a CPU keeps no second thread busy, and one thread there must be.
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "150000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "50000 100000\n"}, 1),
        # The tightest of the groups above counts.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                f"{GROUPS}/a/b/cpu.max": "600000 100000\n",
                f"{GROUPS}/a/cpu.max": "400000 100000\n",
            },
            4,
        ),
        # Version 1, in a container that does not see the host's path.
        (
            {
                "proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/host/1\n0::/\n",
                f"{GROUPS}/cpu/cpu.cfs_quota_us": "200000\n",
                f"{GROUPS}/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                f"{GROUPS}/cpu/cpu.cfs_quota_us": "-1\n",
                f"{GROUPS}/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_a_quota_of_cpu_time_limits(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(range(8), machine(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("asked", "omp", "n", "reason"),
    [
        (3, "7", 3, "TRAJGUARD_THREADS"),
        (None, "7", 2, "OMP_NUM_THREADS"),
        (None, None, 5, "the cores that this process may use"),
    ],
)
def test_the_setting_wins_then_openmp_then_the_cores(
    asked: int | None,
    omp: str | None,
    n: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.set_num_threads(2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setattr(threads, "_affinity", lambda: range(5))
    monkeypatch.setattr(threads, "usable_cores", len)
    with caplog.at_level(logging.INFO):
        set_threads(asked)
    assert torch.get_num_threads() == n
    assert f"{n} CPU threads" in caplog.text
    assert reason in caplog.text
