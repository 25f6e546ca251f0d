"""A ready service over the tiny model, for tests to talk to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.loading import Loaded, start
from app.main import create_app
from app.settings import Settings
from detector.artifact import Artifact
from detector.engine.engine import Engine
from tests.tiny import tiny_checkpoint

IN_SCOPE = "Rosa has 30 eggs. Tove has 12 fewer. How many eggs does Tove have?"
OUT_OF_SCOPE = "zzzzzzzzzz"


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def make_app(artifact: Artifact, **settings: object) -> FastAPI:
    """An app with a checkpoint of its own: a model runs under one engine at a time."""
    chosen = Settings.model_validate({"max_length": 512, **settings})
    return create_app(chosen, load=lambda s: start(s, artifact, tiny_checkpoint()))


@contextmanager
def client_of(app: FastAPI) -> Iterator[TestClient]:
    """A client of the app once it is ready."""
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.portal is not None
        client.portal.call(app.state.trajguard.loading.ended.wait)
        yield client


def loaded_of(app: FastAPI) -> Loaded:
    loaded: Loaded = app.state.trajguard.loading.loaded
    return loaded


def engine_of(app: FastAPI) -> Engine:
    engine = loaded_of(app).engine._backend
    assert isinstance(engine, Engine)
    return engine


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app behind a real server on a free loopback port; yields its address."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup()
            await app.state.trajguard.loading.ended.wait()
            started.set()

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False)
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(timeout=60)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
