"""Whether the process lives, and whether an edit sent now would be done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from obstore.exceptions import BaseError as StoreError

from jobs import presence
from jobs.connection import RedisError
from jobs.logs import get_logger
from jobs.object_store import reason
from service import openapi
from service.problems import Problem
from service.submit import Intake

PATIENCE_S = 1.5
"""A part that has not answered by then does not."""
Parts = dict[str, str]

log = get_logger(__name__)


class Look:
    """Asks one part how it is. One that hangs is not asked again before it has answered: however often readiness is
    asked for, it holds one thread."""

    def __init__(self, ask: Callable[[], Parts], silent: Parts) -> None:
        """`ask` may block; `silent` is said of a part that does not answer in time."""
        self._ask, self._silent = ask, silent
        self._task: asyncio.Task[Parts] | None = None

    async def parts(self) -> Parts:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(to_thread.run_sync(self._ask, abandon_on_cancel=True))
        await asyncio.wait({self._task}, timeout=PATIENCE_S)
        return self._task.result() if self._task.done() else self._silent


class Readiness:
    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._looks = (
            Look(self._workers, {"redis": "does not answer", "workers": "unknown"}),
            Look(self._store, {"store": "does not answer"}),
        )

    async def parts(self) -> Parts:
        """Each part and how it is: `ok`, or what is wrong with it. Answers within two seconds."""
        found = await asyncio.gather(*(look.parts() for look in self._looks))
        return {name: state for parts in found for name, state in parts.items()}

    def _workers(self) -> Parts:
        try:
            states = [worker.state for worker in presence.present(self._intake.repository.redis)]
        except RedisError as error:
            log.warning("not ready: Redis does not answer", reason=str(error))
            return {"redis": "does not answer", "workers": "unknown"}
        return {"redis": "ok", "workers": "ok" if "ready" in states else ", ".join(states) or "no worker"}

    def _store(self) -> Parts:
        try:
            self._intake.blobs.check_writable()
        except (StoreError, OSError) as error:
            log.warning("not ready: the store cannot be written", reason=reason(error))
            return {"store": "not writable"}
        return {"store": "ok"}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.readiness = Readiness(app.state.intake)
    yield


router = APIRouter(tags=["health"], lifespan=_lifespan)


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Is the process alive?")
async def livez() -> dict[str, str]:
    """Always 200 while the process runs; looks at nothing else."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Would an edit sent now be done?",
    responses={
        200: {"description": "Redis, the store and a warm worker are there."},
        **openapi.problem_responses("not-ready"),
    },
)
async def readyz(request: Request) -> Response:
    """503 with a reason for each part until Redis answers, the store is writable and a worker has warmed up. Answers
    within two seconds, also where a part hangs."""
    readiness: Readiness = request.app.state.readiness
    parts = await readiness.parts()
    if all(state == "ok" for state in parts.values()):
        return JSONResponse({"status": "ready", **parts})
    wrong = ", ".join(name for name, state in parts.items() if state != "ok")
    raise Problem("not-ready", f"waiting for: {wrong}", extra=dict(parts))
