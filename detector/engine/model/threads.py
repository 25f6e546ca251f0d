"""How many CPU threads the model gets.

One thread more than there are free cores slows every matrix product down several times: the
threads wait for the one that has no core. Containers are often given fewer CPUs than the
machine shows, by affinity or by a cgroup's quota, and torch counts the machine's.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import torch

log = logging.getLogger(__name__)

_ROOT = Path("/")


def set_threads(asked: int | None) -> None:
    """Use `asked` threads; else as many as OMP_NUM_THREADS says; else one for each core that
    this process may use.
    """
    if asked is not None:
        torch.set_num_threads(asked)
        reason = "as TRAJGUARD_THREADS says"
    elif os.environ.get("OMP_NUM_THREADS"):
        # torch has read it already.
        reason = "as OMP_NUM_THREADS says"
    else:
        torch.set_num_threads(usable_cores(_affinity()))
        reason = "the cores that this process may use"
    log.info("%d CPU threads, %s", torch.get_num_threads(), reason)


def usable_cores(affinity: Collection[int], root: Path = _ROOT) -> int:
    """Physical cores among the CPUs of `affinity`, but no more than the cgroup's quota of
    CPU time keeps busy. `root` is where /proc and /sys are found.
    """
    cores = {_siblings(cpu, root) for cpu in affinity}
    # A thread with a part of a CPU would keep all others waiting for the other part.
    return max(1, math.floor(min([len(cores), *_quotas(root)])))


def _affinity() -> Collection[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _siblings(cpu: int, root: Path) -> str:
    """The hyperthreads of a CPU's core, as Linux lists them, or the CPU alone."""
    path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quotas(root: Path) -> Iterator[float]:
    """The CPUs' worth of time that this process's cgroup and those above it may use."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, entry = line.partition(":")
        controllers, _, path = entry.partition(":")
        if not controllers:
            for folder in _upwards(mounts, path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _ratio(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in _upwards(mounts / "cpu", path):
                quota = _read(folder / "cpu.cfs_quota_us")
                yield from _ratio(quota, _read(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """A cgroup's folder and those above it. In a container `path` may be the host's, but the
    mount is the container's own.
    """
    folder = mount / path.strip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _ratio(quota: str, period: str) -> Iterator[float]:
    """Nothing for "max" and for -1, which mean no limit, nor where there is no such file."""
    if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
