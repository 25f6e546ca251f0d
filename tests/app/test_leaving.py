"""A stream whose client leaves before its first byte is not generated for nobody."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from detector.artifact import Artifact
from detector.backend import Step
from tests.app.serving import IN_SCOPE, client_of, engine_of, make_app, user

URL = "/v1/chat/completions"


class Leaver:
    """An ASGI client that leaves: before anything comes, or as the response begins."""

    def __init__(self, body: dict[str, Any], *, at_once: bool) -> None:
        self._body = json.dumps(body).encode()
        self._begun = asyncio.Event()
        self._sent = False
        self.status: int | None = None
        if at_once:
            self._begun.set()

    async def receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._begun.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status == 200:
                self._begun.set()
                await asyncio.Event().wait()

    async def call(self, app: Any) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": URL,
            "raw_path": URL.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await app(scope, self.receive, self.send)


@pytest.mark.parametrize(("at_once", "status"), [(True, 499), (False, 200)])
@pytest.mark.parametrize("n", [1, 3])
def test_client_that_leaves_before_the_first_byte_frees_its_slot(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, at_once: bool, status: int, n: int
) -> None:
    app = make_app(artifact, n_slots=1, mode="flag")
    body = {"messages": user(IN_SCOPE), "max_tokens": 400, "ignore_eos": True, "stream": True}
    with client_of(app) as client:
        assert client.portal is not None
        engine = engine_of(app)
        ended: list[Step] = []
        step = engine.step

        def watched() -> list[Step]:
            steps = step()
            ended.extend(each for each in steps if each.finish is not None)
            return steps

        monkeypatch.setattr(engine, "step", watched)
        leaver = Leaver({**body, "n": n}, at_once=at_once)
        client.portal.call(leaver.call, app)
        # With one slot, this one is answered only after the engine is done with the others.
        answer = client.post(URL, json={**body, "max_tokens": 2, "stream": False})
        counted = client.get("/metrics").text
    assert leaver.status == status
    assert answer.status_code == 200
    assert [each.finish for each in ended] == ["cancelled"] * n + ["length"]
    assert f'code="{status}",route="{URL}"' in counted
