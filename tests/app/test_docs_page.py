"""The page to try the API on: all that it loads is served here, for who has no internet."""

from __future__ import annotations

import re

from starlette.testclient import TestClient

from tests.app.recorded import recorded_app


def test_the_page_loads_from_here_alone() -> None:
    client = TestClient(recorded_app())
    page = client.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)["']""", page.text)
    assert len(loaded) == 4
    for path in loaded:
        assert path.startswith("/"), path
        assert client.get(path).status_code == 200, path
    # Redoc's fetches a picture from its maker's host.
    assert client.get("/redoc").status_code == 404
