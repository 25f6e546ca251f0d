"""A client that leaves before its answer has begun, or as it begins."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Leaver:
    """An ASGI client that leaves: before anything comes, or as the response begins."""

    def __init__(self, path: str, body: dict[str, Any], *, at_once: bool) -> None:
        self._path = path
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
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await app(scope, self.receive, self.send)
