"""The routes of edits: submit one, look at it, list them, cancel and delete."""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import suppress
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from jobs.connection import RedisError
from jobs.records import EditRecord, Status
from jobs.views import EditList, edit_url, view
from service import accept, auth, conditional, cursors, forms, lookup, openapi
from service.events import START, EventHub, Position
from service.submit import Intake

MAX_WAIT_S = 60
MAX_PAGE = 100
LISTEN_S = 1.0
"""How soon a caller that has left is noticed."""
STORERS = 32
"""Edits that are stored at once. A store that is slow holds these threads, and no others."""

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)

_SUBMIT_RESPONSES = {
    202: openapi.edit_response("Accepted: stored and queued.", done=False, **openapi.SUBMIT_HEADERS),
    200: openapi.edit_response("Done within `Prefer: wait`.", done=True, **openapi.SUBMIT_HEADERS),
    **openapi.problem_responses(
        *auth.PROBLEMS,
        "malformed-body",
        "request-timeout",
        "idempotency-in-flight",
        "expired",
        "payload-too-large",
        "unsupported-image",
        "unsupported-media-type",
        "invalid-parameter",
        "image-too-many-pixels",
        "mask-size-mismatch",
        "webhook-url-forbidden",
        "idempotency-mismatch",
        "quota-exceeded",
        "queue-full",
        "no-workers",
        "unavailable",
    ),
}
_LOOK_PROBLEMS = openapi.problem_responses(*auth.PROBLEMS, "not-found", "expired", "quota-exceeded", "unavailable")

router = APIRouter(tags=["edits"])


@router.post("/edits", include_in_schema=False)
@router.post(
    "/v1/edits",
    status_code=202,
    summary="Edit a picture by instruction",
    openapi_extra=openapi.CREATE_EDIT,
    responses=_SUBMIT_RESPONSES,
)
async def create_edit(request: Request, caller: auth.Submitter) -> Response:
    """Takes one picture and what to change in it, and answers at once with the queued edit; its address has the result.

    Give `instruction` (once, or once per sub-instruction) or `instructions`. Unknown or repeated fields are refused.
    `POST /edits` is the same.
    """
    return await _create(request, caller)


@router.post(
    "/v1/masks",
    status_code=202,
    summary="See where instructions would act",
    openapi_extra=openapi.CREATE_MASKS,
    responses=_SUBMIT_RESPONSES,
)
async def create_masks(request: Request, caller: auth.Submitter) -> Response:
    """One denoising step instead of an edit: masks and attention maps, and no picture.

    Takes the form of the edit that is to follow (but `method`) and answers in the same shape, under the same addresses.
    With the same fields and seed, the edit has these masks; sent back as its masks, they give the same picture.
    """
    return await _create(request, caller, masks_only=True)


async def _create(request: Request, caller: auth.Caller, *, masks_only: bool = False) -> Response:
    intake = lookup.intake(request)
    try:
        form = await forms.read_form(request, intake.settings)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    try:
        begun = await accept.submit(request, caller, form, masks_only=masks_only)
    finally:
        await forms.close(form)
    wait = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    seconds = min(int(wait[1]), MAX_WAIT_S) if wait else 0
    try:
        record = await wait_for_end(request, begun.edit_id, caller, seconds)
    except RedisError:
        if begun.record is None:
            raise
        record, wait = begun.record, None  # it is queued, and the caller must hear its address
    headers = {"Location": edit_url(begun.edit_id)}
    if wait:
        headers["Preference-Applied"] = f"wait={seconds}"
    if begun.replayed:
        headers["Idempotent-Replayed"] = "true"
    return await _edit_response(intake, record, 200 if record.terminal and wait else 202, headers)


class Page(BaseModel):
    """Which edits to list. A misspelt name would list them all."""

    model_config = ConfigDict(extra="forbid")

    status: list[Status] = Field([], description="Only these; may be given several times.")
    limit: int = Field(20, ge=1, le=MAX_PAGE)
    cursor: str | None = Field(None, description="`next_cursor` of the page before.")


@router.get(
    "/v1/edits",
    summary="List edits",
    response_model=EditList,
    responses={
        200: {
            "description": "One page, the newest first.",
            "headers": {"Link": {"schema": {"type": "string"}, "description": 'The next page, `rel="next"`.'}},
        },
        **openapi.problem_responses(*auth.PROBLEMS, "invalid-parameter", "quota-exceeded", "unavailable"),
    },
)
async def list_edits(
    request: Request,
    response: Response,
    caller: auth.Reader,
    page: Annotated[Page, Query()],
) -> EditList:
    """The caller's own edits (with an admin's key everyone's). A page may be shorter than `limit` and not the last."""
    intake = lookup.intake(request)
    after = cursors.read(page.cursor) if page.cursor else None
    records, further = await lookup.in_thread(
        partial(intake.repository.page, caller.lists, page.limit, after, frozenset(page.status))
    )
    if further is None:
        return EditList(data=[view(record) for record in records], next_cursor=None)
    following = cursors.write(further)
    response.headers["Link"] = f'<{request.url.include_query_params(cursor=following)}>; rel="next"'
    return EditList(data=[view(record) for record in records], next_cursor=following)


@router.get(
    "/v1/edits/{edit_id}",
    summary="Look at an edit",
    responses={
        200: openapi.edit_response("The edit as it is now.", done=True),
        304: {"description": "Unchanged since the `ETag` that `If-None-Match` named."},
        **_LOOK_PROBLEMS,
    },
)
async def get_edit(request: Request, edit_id: str, caller: auth.Reader) -> Response:
    """Status, progress and, when done, the addresses of the result, the masks and the attention maps."""
    record = await lookup.find(request, edit_id, caller)
    response = await _edit_response(lookup.intake(request), record, 200, {})
    if conditional.unchanged(request, response.headers["etag"]):
        kept = {
            name: value for name, value in response.headers.items() if name in ("etag", "retry-after", "cache-control")
        }
        return Response(status_code=304, headers=kept)
    return response


@router.post(
    "/v1/edits/{edit_id}/cancel",
    summary="Cancel an edit",
    responses={
        200: openapi.edit_response("`canceled` if it waited, `canceling` if it runs, else as it ended.", done=True),
        **_LOOK_PROBLEMS,
    },
)
async def cancel_edit(request: Request, edit_id: str, caller: auth.Submitter) -> Response:
    """A waiting edit is canceled at once, a running one before its second next step. May be called again and again."""
    intake = lookup.intake(request)
    record = await lookup.find(request, edit_id, caller)
    await lookup.in_thread(partial(intake.cancel, record))
    return await _edit_response(intake, await lookup.find(request, edit_id, caller), 200, {})


@router.delete(
    "/v1/edits/{edit_id}",
    summary="Delete an edit",
    status_code=204,
    responses={204: {"description": "Gone: its record, its input and its outputs."}, **_LOOK_PROBLEMS},
)
async def delete_edit(request: Request, edit_id: str, caller: auth.Submitter) -> Response:
    """An edit that has not ended is canceled first. Afterwards its address answers 410."""
    record = await lookup.find(request, edit_id, caller)
    await lookup.in_thread(partial(lookup.intake(request).delete, record))
    return Response(status_code=204)


async def wait_for_end(request: Request, edit_id: str, caller: auth.Caller, seconds: float) -> EditRecord:
    """The record, as soon as it is terminal, `seconds` have passed, the caller has left or the service is to end."""
    events: EventHub = request.app.state.events
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    latest = await events.latest(edit_id) if seconds > 0 else []
    if latest and latest[0].type != "done":
        after = Position.of(latest[0].id) or START
        with events.listening(edit_id, after) as listener, auth.until_revoked(request, caller, listener.end):
            while not listener.over and (left := deadline - clock()) > 0 and not await request.is_disconnected():
                if any(event.type == "done" for event in await listener.news(min(left, LISTEN_S))):
                    break
    return await lookup.find(request, edit_id, caller)


async def _edit_response(intake: Intake, record: EditRecord, status: int, headers: dict[str, str]) -> Response:
    place: tuple[int | None, int | None] = (None, None)
    with suppress(RedisError):  # an estimate is not worth an answer
        place = await lookup.in_thread(partial(intake.estimate, record))
    body = view(record, *place).model_dump_json().encode()
    headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers["Cache-Control"] = "no-cache"
    if not record.terminal:
        headers["Retry-After"] = "1"
    return Response(body, status_code=status, headers=headers, media_type="application/json")
