"""The application over the real engine and the tiny model."""

from __future__ import annotations

from fastapi import FastAPI

from app.loading import start
from app.main import create_app
from app.settings import Settings
from detector.artifact import Artifact
from detector.engine.engine import Engine
from tests.app.clients import loaded_of
from tests.tiny import tiny_checkpoint


def make_app(artifact: Artifact, **settings: object) -> FastAPI:
    """An app with a checkpoint of its own: a model runs under one engine at a time."""
    chosen = Settings.model_validate({"max_length": 512, **settings})
    return create_app(chosen, load=lambda s: start(s, artifact, tiny_checkpoint()))


def engine_of(app: FastAPI) -> Engine:
    engine = loaded_of(app).engine._backend
    assert isinstance(engine, Engine)
    return engine
