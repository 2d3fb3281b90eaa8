"""The HTTP application. `create_app` gets everything it needs from the settings; nothing is global."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.idempotency import IdempotencyKeys
from jobs.queue import EditQueue
from jobs.repository import EditRepository
from jobs.settings import Settings
from service import edits, files, health, openapi, problems, stream
from service.events import EventReader
from service.submit import Intake

_SUMMARY = "Instruction-based image editing that changes only what was asked (Focus on Your Instruction, CVPR 2024)."


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi.add_problem_schema(super().openapi())
        return self.openapi_schema


def create_app(settings: Settings, redis_url: str) -> FastAPI:
    """Connects lazily: the service starts without Redis, and says so at /readyz."""
    events = EventReader(redis_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await events.close()

    app = _App(
        title="Focus on Your Instruction", summary=_SUMMARY, version=_version(), redoc_url=None, lifespan=lifespan
    )
    repository = EditRepository(connect(redis_url, decode=True), settings.retention_s)
    app.state.intake = Intake(
        settings=settings,
        repository=repository,
        blobs=BlobStore(settings.data_dir / "blobs"),
        queue=EditQueue(connect(redis_url)),
        idempotency=IdempotencyKeys(repository),
    )
    app.state.events = events
    app.state.decoders = CapacityLimiter(edits.DECODERS)
    problems.install(app)
    for part in (edits, stream, files, health):
        app.include_router(part.router)

    @app.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app


def _version() -> str:
    try:
        return version("focus-on-your-instruction")
    except PackageNotFoundError:
        return "0+source"
