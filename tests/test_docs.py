"""Documents and files that must agree with the code."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

from app.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent


def test_every_setting_is_documented_and_no_other() -> None:
    rows = re.findall(
        rf"^\| `{PREFIX}(\w+)`", (ROOT / "docs/settings.md").read_text(), re.MULTILINE
    )
    assert [row.lower() for row in rows] == list(Settings.model_fields)


def test_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version("trajguard")


def test_every_route_is_documented() -> None:
    text = (ROOT / "docs/api.md").read_text()
    for path in (ROOT / "app/routes").glob("*.py"):
        for route in re.findall(r"@router\.\w+\(\s*\"([^\"]+)\"", path.read_text()):
            assert f"{route}`" in text, route


def test_direct_dependencies_are_pinned_alike_in_both_files() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pins = {pin.lower() for group in groups for pin in group if "[" not in pin}
    lines = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").split()
    assert {pin.replace("_", "-") for pin in pins} <= set(lines)


def test_links_in_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
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
