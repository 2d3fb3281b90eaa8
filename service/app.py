"""The HTTP application. `create_app` gets everything it needs from the settings; nothing is global."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.types import ASGIApp

from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.idempotency import IdempotencyKeys
from jobs.queue import EditQueue
from jobs.repository import EditRepository
from jobs.settings import Settings
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
from service.events import EventReader
from service.images import Reader
from service.requests import LoopbackHosts, RequestIds
from service.submit import Intake

_SUMMARY = "Instruction-based image editing that changes only what was asked (Focus on Your Instruction, CVPR 2024)."


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi.add_problem_schema(super().openapi())
        return self.openapi_schema

    def build_middleware_stack(self) -> ASGIApp:
        app = super().build_middleware_stack()
        if self.state.intake.settings.auth == "auto":
            app = LoopbackHosts(app)
        return RequestIds(metrics.RequestCounts(app))


def create_app(settings: Settings, redis_url: str) -> FastAPI:
    """Connects lazily: the service starts without Redis, and says so at /readyz."""
    events = EventReader(redis_url)
    guard = Guard(settings, redis_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await events.close()
        await guard.close()

    app = _App(
        title="Focus on Your Instruction",
        summary=_SUMMARY,
        version=_version(),
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
    for part in (edits, stream, files, instructions, info, metrics, deliveries, openai_images, health, page):
        app.include_router(part.router)
    return app


def _version() -> str:
    try:
        return version("focus-on-your-instruction")
    except PackageNotFoundError:
        return "0+source"
