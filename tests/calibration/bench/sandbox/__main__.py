"""Every attack and how it ended, and every system call by its number, as tables.

python -m tests.calibration.bench.sandbox
"""

from __future__ import annotations

import os
import platform
import sys

from calibration.bench.sandbox.inside import SYSCALLS
from calibration.bench.sandbox.running import Limits, Sandbox
from tests.calibration.bench.sandbox.attacks import ATTACKS, LIBC

LEFT = "/tmp/left-by-an-attack"


def attacked(sandbox: Sandbox) -> tuple[list[str], int]:
    """A row an attack, and how many ended as they may not."""
    lines, astray = ["| attack | ended | by |", "|---|---|---|"], 0
    for attack in ATTACKS:
        (outcome,) = sandbox.run(attack.program, "attack", [[LEFT]])
        astray += outcome.kind not in attack.ends
        lines.append(f"| {attack.name} | {outcome.kind} | {outcome.detail} |")
    return [*lines, "", f"{len(ATTACKS)} attacks, {astray} ended amiss"], astray


def swept(sandbox: Sandbox) -> list[str]:
    """System calls 0 to 511 with arguments of 0: those that end otherwise than by the filter."""
    names = {number: name for name, number in SYSCALLS[platform.machine()].items()}
    lines = ["| number | name | ended | by |", "|---:|---|---|---|"]
    for number in range(512):
        program = f"{LIBC}\ndef ask(): return libc.syscall({number}, 0, 0, 0, 0, 0, 0)"
        (outcome,) = sandbox.run(program, "ask", [[]])
        if outcome.kind != "forbidden":
            name = names.get(number, "none of ours")
            lines.append(f"| {number} | {name} | {outcome.kind} | {outcome.detail} |")
    return lines


def main() -> int:
    """1 where an attack ended as none may."""
    sandbox = Sandbox(Limits(cpu_s=1))
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    head = f"Python {platform.python_version()}, Linux {platform.release()}, {who}:\n"
    lines, astray = attacked(sandbox)
    sys.stdout.write("\n".join([head, *lines, "", *swept(sandbox), ""]))
    return 1 if astray or os.path.lexists(LEFT) else 0


if __name__ == "__main__":
    sys.exit(main())
