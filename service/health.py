"""Whether the process lives, and whether an edit sent now would be done."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from obstore.exceptions import BaseError as StoreError

from jobs import presence
from jobs.connection import RedisError
from service import openapi
from service.problems import Problem
from service.submit import Intake

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> dict[str, str]:
    """Always 200 while the process runs; looks at nothing else."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Would an edit sent now be done?",
    responses={
        200: {"description": "Redis, the store and a warm worker are there."},
        **openapi.problem_responses("not-ready"),
    },
)
async def readyz(request: Request) -> Response:
    """503 with a reason for each part until Redis answers, the store is writable and a worker has warmed up."""
    parts = await to_thread.run_sync(_parts, request.app.state.intake)
    if all(state == "ok" for state in parts.values()):
        return JSONResponse({"status": "ready", **parts})
    wrong = ", ".join(name for name, state in parts.items() if state != "ok")
    raise Problem("not-ready", f"waiting for: {wrong}", extra=parts)


def _parts(intake: Intake) -> dict[str, str]:
    try:
        states = [worker.state for worker in presence.present(intake.repository.redis)]
        redis, workers = "ok", "ok" if "ready" in states else ", ".join(states) or "no worker"
    except RedisError as error:
        redis, workers = f"does not answer: {error}", "unknown"
    return {"redis": redis, "store": _store(intake), "workers": workers}


def _store(intake: Intake) -> str:
    try:
        intake.blobs.check_writable()
    except (StoreError, OSError) as error:
        return f"not writable: {str(error).splitlines()[0]}"
    return "ok"
