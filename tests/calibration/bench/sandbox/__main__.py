"""Every attack and how it ended, as a table: python -m tests.calibration.bench.sandbox."""

from __future__ import annotations

import os
import platform
import sys

from calibration.bench.sandbox.running import Limits, Sandbox
from tests.calibration.bench.sandbox.attacks import ATTACKS


def main() -> int:
    """1 where one ended as none may."""
    sandbox = Sandbox(Limits(cpu_s=1))
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    lines = [
        f"Python {platform.python_version()}, Linux {platform.release()}, {who}:",
        "",
        "| attack | ended | by |",
        "|---|---|---|",
    ]
    astray = 0
    for attack in ATTACKS:
        (outcome,) = sandbox.run(attack.program, "attack", [["/tmp/left-by-an-attack"]])
        astray += outcome.kind not in attack.ends
        lines.append(f"| {attack.name} | {outcome.kind} | {outcome.detail} |")
    sys.stdout.write("\n".join([*lines, "", f"{len(ATTACKS)} attacks, {astray} ended amiss\n"]))
    return 1 if astray or os.path.lexists("/tmp/left-by-an-attack") else 0


if __name__ == "__main__":
    sys.exit(main())
