"""From a form that has arrived to a queued edit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Request

from service import lookup
from service.auth import Caller
from service.fetch import fetch_image
from service.forms import Form
from service.problems import Problem
from service.submit import Begun

MAX_IDEMPOTENCY_KEY = 255


async def submit(request: Request, caller: Caller, form: Form, *, masks_only: bool = False) -> Begun:
    """The edit, stored and queued; or, for a request that was sent before, the one that it made then. Raises the
    Problem, after which nothing is left."""
    intake, key = lookup.intake(request), _idempotency_key(request)
    begun = await lookup.in_thread(partial(intake.begin, form, caller.owner, key, masks_only=masks_only))
    if begun.replayed:
        return begun
    limiter: CapacityLimiter = request.app.state.decoders
    try:
        await lookup.in_thread(intake.check_room)
        if begun.request.image_url is not None:
            form.files["image"] = await fetch_image(begun.request.image_url, intake.settings)
        record = await to_thread.run_sync(partial(intake.finish, begun, form), limiter=limiter)
    except BaseException:
        with CancelScope(shield=True):
            await lookup.in_thread(partial(intake.abandon, begun))
        raise
    return replace(begun, record=record)


def _idempotency_key(request: Request) -> str | None:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1 or any(not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY for key in keys):
        detail = f"send one Idempotency-Key, of 1 to {MAX_IDEMPOTENCY_KEY} characters"
        raise Problem("invalid-parameter", detail, [{"pointer": "/Idempotency-Key", "detail": detail}])
    return keys[0] if keys else None
