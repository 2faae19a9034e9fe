"""The application; `app.api.server` serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import (
    attacks,
    catalogues,
    checkpoints,
    choices,
    comparison,
    curves,
    document,
    documentation,
    errors,
    evaluations,
    events,
    experiments,
    health,
    leaderboard,
    metrics,
    neurons,
    open_inference,
    pictures,
    predictions,
    reports,
    runs,
    trail,
    uploads,
)
from app.api.again import SERVER_THREADS, SQLITE_THREADS, Again
from app.api.dependencies import Services
from app.api.every_answer import EveryAnswer
from app.api.hub import Hub
from app.api.parameters import known_parameters
from app.api.requests import Requests
from app.api.security import Gate
from app.api.ui.pages import PAGES
from app.broker import Doorbell
from app.domain.access import keys_needed
from app.inference.batcher import Batcher
from app.inference.loader import ModelCache
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
        await run_in_threadpool(services.close_waiting)
        await run_in_threadpool(services.sweeper.close)
        services.database.close()

    app = FastAPI(
        title="spikeproof", version=version("spikeproof"), lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Trains default, LIF and ParaLIF ResNets, attacks them, and tells how robust they really are.",
    )
    config.data_dir.mkdir(parents=True, exist_ok=True)
    uploads.remove_leftovers(config.data_dir)
    database = Database(config.resolved_database_url)
    migrate.upgrade(database)
    doorbell = Doorbell(config) if config.broker_url else None
    hub = Hub(database, config.data_dir)
    figures = metrics.Metrics(database, config.lease_seconds, hub.streams)
    models = ModelCache(config.predict_cache_mib * 2**20, config.predict_device)
    batcher = Batcher(
        largest=config.predict_batch, wait_seconds=config.predict_wait_ms / 1000, places=config.predict_queue,
        threads=config.predict_threads, observer=figures.predictions,
    )
    figures.predictions.show(lambda: batcher.taken, lambda: models.bytes)
    sweeper = Sweeper(database, config, doorbell)
    app.state.services = Services(config, database, sweeper, hub, figures, models, batcher, doorbell)
    answering = SQLITE_THREADS if database.is_sqlite else SERVER_THREADS
    app.add_middleware(_BodyLimit, images=config.max_upload_mib * 2**20, weights=config.max_weights_mib * 2**20)
    app.add_middleware(Again, answers=app.state.services.answers, threads=answering)
    app.add_middleware(Gate, services=app.state.services)  # before a body is read
    app.add_middleware(EveryAnswer)
    app.add_middleware(Requests, observe=figures.observe)
    errors.install(app)
    app.router.routes.extend(_routes())
    document.describe(app, closed=keys_needed(config.keys, config.reached_at))
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Every application's: what a route takes, FastAPI works out once a process, not once an application."""
    everything, strictly = APIRouter(), [Depends(known_parameters)]
    for module in (*PAGES, open_inference, health, metrics, documentation):  # whose callers may have words of their own
        everything.include_router(module.router)
    for module in (
        experiments, events, runs, leaderboard, choices, comparison, curves, checkpoints, uploads, predictions,
        attacks, pictures, evaluations, neurons, catalogues, reports, trail,
    ):
        everything.include_router(module.router, dependencies=strictly)
    return everything.routes


class _BodyLimit:
    """Images and weights may be large; what describes an experiment is not, and takes long to refuse if it is."""

    def __init__(self, app: ASGIApp, images: int, weights: int) -> None:
        documents = min(images, LARGEST_DOCUMENT)
        self._weights, self._images, self._documents = (
            (limit, RequestBodyLimitMiddleware(app, limit)) for limit in (weights, images, documents)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[errors.BODY_LIMIT], limited = self._limit_of(scope.get("path", ""))
        await limited(scope, receive, send)

    def _limit_of(self, path: str) -> tuple[int, RequestBodyLimitMiddleware]:
        if path == "/checkpoints":
            return self._weights
        return self._images if path.startswith(("/checkpoints/", "/v2/")) else self._documents
