"""The application; `app.api.server` serves it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import (
    attacks,
    catalogues,
    checkpoints,
    comparison,
    curves,
    document,
    errors,
    evaluations,
    events,
    experiments,
    health,
    leaderboard,
    metrics,
    neurons,
    pictures,
    runs,
    trail,
    uploads,
)
from app.api.dependencies import Services
from app.api.hub import Hub
from app.api.requests import Requests
from app.api.security import Gate
from app.api.ui import architectures as architecture_pages
from app.api.ui import assets, home, playground, sign_in
from app.api.ui import checkpoints as checkpoint_pages
from app.api.ui import neurons as neuron_pages
from app.broker import Doorbell
from app.domain.access import keys_needed
from app.settings import Settings, settings
from app.storage import migrate
from app.storage.engine import Database
from app.sweeper import Sweeper

LARGEST_DOCUMENT = 2**20


def create_application(config: Settings | None = None) -> FastAPI:
    """Opens the database, brings it up to date, starts the sweeper."""
    config = config or settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services: Services = app.state.services
        services.sweeper.start()
        yield
        await run_in_threadpool(services.hub.close)
        await run_in_threadpool(services.sweeper.close)
        services.database.close()

    app = FastAPI(
        title="spikeproof", version=version("spikeproof"), lifespan=lifespan,
        description="Trains default, LIF and ParaLIF ResNets, attacks them, and tells how robust they really are.",
    )
    config.data_dir.mkdir(parents=True, exist_ok=True)
    uploads.remove_leftovers(config.data_dir)
    database = Database(config.resolved_database_url)
    migrate.upgrade(database)
    doorbell = Doorbell(config) if config.broker_url else None
    hub = Hub(database, config.data_dir)
    figures = metrics.Metrics(database, config.lease_seconds, hub.streams)
    app.state.services = Services(config, database, Sweeper(database, config, doorbell), hub, figures, doorbell)
    app.add_middleware(_BodyLimit, images=config.max_upload_mib * 2**20, weights=config.max_weights_mib * 2**20)
    app.add_middleware(Gate, services=app.state.services)  # before a body is read
    app.middleware("http")(_finish)
    app.add_middleware(Requests, observe=figures.observe)
    errors.install(app)
    for module in (
        home, sign_in, assets, checkpoint_pages, playground, architecture_pages, neuron_pages,
        experiments, events, runs, leaderboard, comparison, curves, checkpoints, uploads, catalogues, trail,
        attacks, pictures, evaluations, neurons,
        health, metrics,
    ):
        app.include_router(module.router)
    document.describe(app, closed=keys_needed(config.keys, config.reached_at))
    return app


async def _finish(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """What holds for every answer."""
    response = await call_next(request)
    if response.status_code == 413 and response.headers.get("content-type") != errors.MEDIA_TYPE:
        response = errors.problem(request, 413, "the body is larger than this service takes")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")  # no page of another site shows it
    response.headers.setdefault("Cache-Control", "private")  # it was for whoever had the key
    return response


class _BodyLimit:
    """Images and weights may be large; what describes an experiment is not, and takes long to refuse if it is."""

    def __init__(self, app: ASGIApp, images: int, weights: int) -> None:
        self._weights = RequestBodyLimitMiddleware(app, weights)
        self._images = RequestBodyLimitMiddleware(app, images)
        self._documents = RequestBodyLimitMiddleware(app, min(images, LARGEST_DOCUMENT))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._limit_of(scope.get("path", ""))(scope, receive, send)

    def _limit_of(self, path: str) -> RequestBodyLimitMiddleware:
        if path == "/checkpoints":
            return self._weights
        return self._images if path.startswith("/checkpoints/") else self._documents
