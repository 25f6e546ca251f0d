"""The application: routes, error shape, metrics, and loading in the background.

The port opens at once; `/readyz` answers 503 until model and artifact are loaded and match,
and says why if they never will.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from app import errors
from app.auditing import Acted, open_audit, write_action, write_row
from app.cors import Cors
from app.environment import PREFIX
from app.error_shapes import ErrorShapes
from app.json_body import Workers
from app.judging import Judged, log_judged
from app.loading import Loaded, Loading, load
from app.metrics import Metrics
from app.middleware import BodyLimit, RequestLog
from app.page.shell import shell
from app.page.showing import Showing, drift_of
from app.reloading import Reloading
from app.routes import page
from app.routes.all import ROUTERS
from app.routes.dependencies import State
from app.second_opinion.metrics import OpinionMetrics
from app.second_opinion.opinions import Opinions
from app.security import KeyRequired, Keys, describe_keys
from app.settings import Settings
from app.telemetry import OFF, Telemetry, open_telemetry
from app.watching.watching import Watching
from detector.errors import TrajGuardError

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts that nobody else can reach."""


def create_app(
    settings: Settings,
    load: Callable[[Settings], Loaded] = load,
    engine_died: Callable[[], None] = lambda: None,
    open_telemetry: Callable[[Settings], Telemetry | None] = open_telemetry,
) -> FastAPI:
    """The ASGI application. `load` makes what it serves, on a thread of its own; `engine_died` is
    called when that serves nothing any more until the process is started again; `open_telemetry`
    makes what tells OpenTelemetry.

    Raises BadSettingError when the keys cannot be read or telemetry not be sent, AuditError when
    the audit log cannot be written, StateError when the state file cannot be.
    """
    metrics = Metrics()
    loading = Loading()
    watching = Watching(settings, metrics.registry)
    opinions = Opinions(settings, OpinionMetrics(metrics.registry))
    keys = Keys.of(settings)
    workers = Workers()
    showing = None
    if settings.page:
        showing = Showing(shell(has_keys=bool(keys)), drift=lambda: drift_of(watching))
    telemetry = open_telemetry(settings)
    audit = open_audit(settings)
    if audit is not None:
        metrics.audit(audit)
        if settings.on_audit_failure == "closed":
            loading.also_unready = lambda: (
                audit.failure and (f"the audit log cannot be written ({audit.failure})")
            )

    def warn_if_open() -> None:
        if not keys and settings.host not in LOOPBACK:
            log.warning(
                "listening on %s without a key: whoever reaches this port is served. Set "
                "%sAPI_KEYS (`trajguard key` makes one), or listen on 127.0.0.1",
                settings.host,
                PREFIX,
            )

    def judged(event: Judged) -> None:
        metrics.judged(event)
        log_judged(event)
        watching.judged(event)
        if audit is not None:
            write_row(audit, event, prompts=settings.audit_prompts)
        if showing is not None:
            showing.recent.add(event)
        if telemetry is not None:
            telemetry.judged(event)

    def acted(action: str, request_id: str, key_id: str | None = None) -> None:
        if audit is not None:
            loaded = loading.result
            model, artifact = (loaded.model_id, loaded.artifact_id) if loaded else ("", "")
            write_action(audit, Acted(action, request_id, key_id, model, artifact))

    reloading = Reloading(
        loading, metrics, watching.serve, signalled=lambda action: acted(action, "SIGHUP")
    )

    async def load_in_background() -> None:
        try:
            loading.result = await asyncio.to_thread(load, settings)
        except TrajGuardError as error:
            loading.reason = error.message
            log.error("not ready [%s]: %s", error.code, error.message)
        except Exception as error:
            loading.reason = f"loading failed ({type(error).__name__}), see the service log"
            log.exception("loading failed")
        else:
            metrics.serve(loading.result)
            log_ready(loading.result)
            watching.serve(loading.result)
        finally:
            loading.ended.set()
        if loading.result is not None:
            await loading.result.engine.watch()
            engine_died()

    def log_ready(loaded: Loaded) -> None:
        log.info(
            "ready on http://%s:%d: model %s, artifact %s (%s), mode %s, alpha %g",
            settings.host,
            settings.port,
            loaded.model_id,
            loaded.artifact_id,
            loaded.manifest.scope,
            settings.mode,
            loaded.detector.alpha,
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        reloading.listen()
        warn_if_open()
        tasks = [asyncio.create_task(work) for work in (load_in_background(), watching.run())]
        try:
            yield
        finally:
            await loading.ended.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if loading.result is not None:
                await asyncio.to_thread(loading.result.stop)
            if audit is not None:
                await asyncio.to_thread(audit.close)
            if telemetry is not None:
                await asyncio.to_thread(telemetry.close)
            workers.stop()

    # Its page comes with its scripts, which FastAPI's own fetches from another host; Redoc fetches
    # a picture all the same.
    app = FastAPIOffline(
        title="TrajGuard",
        redoc_url=None,
        version=version("trajguard"),
        description="An out-of-distribution guard for math questions to language models.",
        lifespan=lifespan,
        telemetry=OFF if telemetry is None else telemetry.of_requests,
    )
    app.state.trajguard = State(
        loading, metrics, judged, reloading, workers, watching, acted, opinions, showing
    )
    errors.install(app)
    app.add_middleware(BodyLimit, loading=loading)
    # A browser sends no key for a page itself.
    also_open = () if showing is None else showing.shell.paths
    app.add_middleware(KeyRequired, keys=keys, also_open=also_open)
    app.add_middleware(ErrorShapes)
    app.add_middleware(RequestLog, metrics=metrics)
    if settings.origins:
        # Before keys are asked for, which browsers do not show beforehand.
        app.add_middleware(Cors, origins=settings.origins)
    for router, described in ROUTERS:
        app.include_router(router, responses=described)
    for route in app.routes:
        # The page of the API; HEAD of what is in the schema is a route beside it.
        if isinstance(route, APIRoute) and not route.include_in_schema and route.methods == {"GET"}:
            route.methods = {"GET", "HEAD"}
    if showing is not None:
        app.include_router(page.router)
    if keys:
        describe_keys(app)
    return app
