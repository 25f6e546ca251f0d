"""Documents and files that must agree with the code."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

from app.environment import PREFIX
from app.settings import Settings
from calibration.__main__ import Calibration
from calibration.bench.drift.__main__ import Drift
from calibration.bench.explain.__main__ import Explain
from calibration.bench.paper.__main__ import Paper
from calibration.bench.responses.__main__ import Responses
from calibration.bench.scope.__main__ import Scope
from calibration.bench.speed.__main__ import Speed
from calibration.bench.streaming.__main__ import Streaming
from calibration.command_line import CommandLine
from trajguard import TrajGuard

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
PROGRAMS: dict[str, type[CommandLine]] = {
    "trajguard": TrajGuard,
    "-m calibration": Calibration,
    "-m calibration.bench.drift": Drift,
    "-m calibration.bench.explain": Explain,
    "-m calibration.bench.paper": Paper,
    "-m calibration.bench.responses": Responses,
    "-m calibration.bench.scope": Scope,
    "-m calibration.bench.speed": Speed,
    "-m calibration.bench.streaming": Streaming,
}
PLACEHOLDER = "COMMAND"


def test_every_setting_is_documented_and_no_other() -> None:
    rows = re.findall(
        rf"^\| `{PREFIX}(\w+)`", (ROOT / "docs/settings.md").read_text(), re.MULTILINE
    )
    assert [row.lower() for row in rows] == list(Settings.model_fields)


def test_changelog_begins_with_this_version() -> None:
    newest = re.search(
        r"^## (?!Unreleased$)(\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert newest is not None
    assert newest[1] == version("trajguard")


def test_every_route_is_documented() -> None:
    text = (ROOT / "docs/api.md").read_text()
    for path in (ROOT / "app/routes").glob("*.py"):
        for route in re.findall(r"@router\.\w+\(\s*\"([^\"]+)\"", path.read_text()):
            assert f"{route.replace(':path', '')}`" in text, route


def test_direct_dependencies_are_pinned_alike_in_both_files() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pins = {pin.lower() for group in groups for pin in group if "[" not in pin}
    lines = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").split()
    assert {pin.replace("_", "-") for pin in pins} <= set(lines)


def test_links_in_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)


def test_ci_runs_what_the_readme_says() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    assert "make lint test" in (ROOT / ".ci/run").read_text()


def test_compose_mounts_what_is_there() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists()


def typed_commands(path: Path) -> list[tuple[str, str]]:
    """Programs of ours and the commands given to them, in code and on lines of a console."""
    text = path.read_text().replace("$(TRAJGUARD)", "`trajguard")
    program = r"(?:^\$ |`)[^`\n]*?((?<![\w/=])trajguard|-m calibration[\w.]*)"
    found = re.findall(rf"{program} ([\w-]+)", text, re.MULTILINE)
    return found + re.findall(r"\$\(RUN\) (-m calibration[\w.]*) ([\w-]+)", text)


def test_every_command_that_is_typed_somewhere_exists() -> None:
    seen = set()
    for path in [*DOCUMENTS, ROOT / "Makefile"]:
        for program, command in typed_commands(path):
            names = (name.replace("_", "-") for name in PROGRAMS[program].model_fields)
            known = {*names, PLACEHOLDER}
            assert command in known, (path.name, program, command)
            seen.add((program, command))
    assert {("trajguard", name) for name in ("generate", "collect", "fit", "report", "ask")} <= seen
    assert ("-m calibration.bench.paper", "baselines") in seen
    assert ("-m calibration.bench.speed", "throughput") in seen


def test_every_package_is_listed_but_the_instruments() -> None:
    """A sub-package that is forgotten works in a checkout and is missing from the wheel."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for name in ("app", "calibration", "detector")
        for path in (ROOT / name).rglob("*.py")
    }
    assert "calibration.bench.paper" in folders
    assert set(setuptools["packages"]) == {
        folder for folder in folders if not folder.startswith("calibration.bench")
    }
    assert setuptools["py-modules"] == ["trajguard"]
    for folder in folders:
        assert (ROOT / folder.replace(".", "/") / "__init__.py").exists(), folder


def test_the_image_has_what_is_packaged_and_no_instruments() -> None:
    copied = set(re.findall(r"^COPY (\S+) ", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert {"app", "calibration", "detector", "trajguard.py"} <= copied
    assert "calibration/bench" in (ROOT / ".dockerignore").read_text().split()
