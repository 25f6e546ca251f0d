"""SIGHUP reloads as the admin route does, and nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, cast

import pytest
from fastapi import FastAPI

from app.loading import Guard
from detector.manifest import Context
from detector.trajectory import PROMPT
from tests.app.clients import client_of, loaded_of
from tests.app.recorded import RecordedDetector, _FittedLook, recorded_app, recorded_manifest
from tests.app.recorded_codec import RecordedCodec

if TYPE_CHECKING:
    from detector.detector import Detector


def recorded_guard(artifact_id: str, threshold: float) -> Guard:
    """One that reloading may bring: looks at the prompt and at 4 tokens."""
    looks = (_FittedLook(PROMPT), _FittedLook(4))
    detector = cast("Detector", RecordedDetector(looks, threshold=threshold))
    manifest = recorded_manifest(["prompt", "4"], Context())
    return Guard(artifact_id, manifest, detector, RecordedCodec())


def test_sighup_reloads() -> None:
    """Sent to this process, whose main thread serves."""
    loop_of: list[asyncio.AbstractEventLoop] = []
    read = asyncio.Event()

    def read_guard() -> Guard:
        loop_of[0].call_soon_threadsafe(read.set)
        return recorded_guard("new-id", threshold=1.0)

    async def serve() -> str:
        loop_of.append(asyncio.get_running_loop())
        app = recorded_app(read_guard=read_guard)
        state = app.state.trajguard
        async with app.router.lifespan_context(app):
            await state.loading.ended.wait()
            os.kill(os.getpid(), signal.SIGHUP)
            await read.wait()
            async with state.reloading._one_at_a_time:
                return loaded_of(app).artifact_id

    # Whoever runs the tests may have it ignored, as nohup does.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert asyncio.run(serve()) == "new-id"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_sighup_that_comes_to_nothing_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Guard:
        raise OSError

    async def signalled(app: FastAPI) -> None:
        reloading = app.state.trajguard.reloading
        reloading.reload_soon()
        (task,) = reloading._signalled
        await task
        assert not reloading._signalled

    app = recorded_app(read_guard=broken)
    with client_of(app) as client:
        assert client.portal is not None
        client.portal.call(signalled, app)
        assert "recorded-id stays in force: reading it failed (OSError)" in caplog.text
        loading = app.state.trajguard.loading
        loading.result, loaded = None, loading.result
        client.portal.call(signalled, app)
        loading.result = loaded
    assert "not reloaded [not_ready]" in caplog.text
