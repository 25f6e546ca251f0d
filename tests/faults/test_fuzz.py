"""A few cases of the fuzz over all routes, where schemathesis is installed: `make fuzz`."""

from __future__ import annotations

import pytest

from tests.faults.fuzz import main


def test_no_route_crashes_or_answers_what_it_does_not_say() -> None:
    pytest.importorskip("schemathesis")
    assert main(5) == 0
