"""The HTTP application. `create_app` gets everything it needs from the settings; nothing is global."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.types import ASGIApp

from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.idempotency import IdempotencyKeys
from jobs.queue import EditQueue
from jobs.repository import EditRepository
from jobs.settings import Settings, origin_of
from jobs.version import version
from service import (
    deliveries,
    edits,
    files,
    health,
    info,
    instructions,
    metrics,
    openai_images,
    openapi,
    page,
    problems,
    stream,
    telemetry,
)
from service.auth import Guard
from service.events import EventHub
from service.images import Reader
from service.requests import LastAnswers, LoopbackHosts, OwnPages, RequestIds, allow_origins
from service.submit import Intake

_SUMMARY = "Instruction-based image editing that changes only what was asked (Focus on Your Instruction, CVPR 2024)."


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi.add_problem_schema(super().openapi())
        return self.openapi_schema

    def build_middleware_stack(self) -> ASGIApp:
        app, settings = super().build_middleware_stack(), self.state.intake.settings
        app = OwnPages(app, {*settings.cors_origins, origin_of(settings.public_url)} - {""})
        if settings.cors_origins:
            app = allow_origins(app, settings.cors_origins)
        if settings.auth == "auto":
            app = LoopbackHosts(app)
        return RequestIds(metrics.RequestCounts(LastAnswers(app)))


def create_app(settings: Settings, redis_url: str) -> FastAPI:
    """Connects lazily: the service starts without Redis, and says so at /readyz."""
    events = EventHub(redis_url)
    guard = Guard(settings, redis_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await events.close()
        await guard.close()

    app = _App(
        title="Focus on Your Instruction",
        summary=_SUMMARY,
        version=version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=telemetry.config(settings),
    )
    repository = EditRepository(connect(redis_url, decode=True), settings.retention_s)
    app.state.intake = Intake(
        settings=settings,
        repository=repository,
        blobs=BlobStore.of(settings),
        queue=EditQueue(connect(redis_url)),
        idempotency=IdempotencyKeys(repository),
    )
    app.state.events = events
    app.state.auth = guard
    app.state.pictures = Reader(settings.max_pixels)
    app.state.storers = CapacityLimiter(edits.STORERS)
    app.state.viewers = CapacityLimiter(files.VIEWERS)
    problems.install(app)
    app.add_exception_handler(stream.NothingFollowsError, stream.nothing_follows)
    for part in (edits, stream, files, instructions, info, metrics, deliveries, openai_images, health, page):
        app.include_router(part.router)
    return app
