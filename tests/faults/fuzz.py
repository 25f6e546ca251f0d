"""Every route, asked what its schema allows and what it does not: `python -m tests.faults.fuzz`.

Schemathesis (`pip install '.[fuzzing]'`) asks a service over a recorded backend, first without
keys and then with one set, of each operation as many cases as the number given (2,000). Ends with
1 where a crash, an undocumented status or a body that is not of its schema came back.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fastapi import FastAPI

from app.security import new_key
from tests.app.clients import served
from tests.app.recorded import recorded_app

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)
CONFIG = Path(__file__).with_name("schemathesis.toml")


def fuzz(app: FastAPI, n_cases: int, *flags: str) -> int:
    """Schemathesis's own status."""
    program = Path(sys.executable).with_name("schemathesis")
    with served(app) as url:
        return subprocess.call(
            [
                *(program, "--config-file", CONFIG, "run", f"{url}/openapi.json", "--seed", "1"),
                *("--checks", ",".join(CHECKS), "--max-examples", str(n_cases)),
                *("--continue-on-failure", "--suppress-health-check", "all", *flags),
            ]
        )


def main(n_cases: int) -> int:
    """0 where nothing was found."""
    (key, entry), (_, other) = new_key("privileged"), new_key("user")
    failed = fuzz(recorded_app(), n_cases)
    failed |= fuzz(recorded_app(api_keys=f"{entry} {other}"), n_cases, "-H", f"x-api-key:{key}")
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 2000))
