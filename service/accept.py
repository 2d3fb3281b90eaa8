"""From a form that has arrived to a queued edit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Request

from service import lookup, parsing
from service.auth import Caller
from service.fetch import fetch_image
from service.forms import Form
from service.images import Reader
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
    limiter: CapacityLimiter = request.app.state.storers
    try:
        await lookup.in_thread(intake.check_room)
        if begun.request.image_url is not None:
            form.files["image"] = await fetch_image(begun.request.image_url, intake.settings)
        size = await _check_pictures(request.app.state.pictures, begun.request, form)
        record = await to_thread.run_sync(partial(intake.finish, begun, form, size), limiter=limiter)
    except BaseException:
        with CancelScope(shield=True):
            await lookup.in_thread(partial(intake.abandon, begun))
        raise
    return replace(begun, record=record)


async def _check_pictures(reader: Reader, request: parsing.Request, form: Form) -> tuple[int, int]:
    """The size of the one to edit. Leaves masks in the form as they are to be stored. Raises the Problem."""
    size = await reader.check(form.files["image"])
    parsing.check_encoder(request, size)
    for name in dict.fromkeys(request.masks):
        if name is not None:
            sent = form.files[name]
            form.files[name] = await reader.mask(sent, size, name)
            await sent.close()
    return size


def _idempotency_key(request: Request) -> str | None:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1 or any(not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY for key in keys):
        detail = f"send one Idempotency-Key, of 1 to {MAX_IDEMPOTENCY_KEY} characters"
        raise Problem("invalid-parameter", detail, [{"pointer": "/Idempotency-Key", "detail": detail}])
    return keys[0] if keys else None
