"""The routes of an edit: submit it, look at it, fetch its files."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from jobs.records import EditRecord, StoredFile
from service import forms, openapi
from service.events import EventReader
from service.problems import Problem
from service.submit import Intake
from service.wire import edit_url, view

MAX_WAIT_S = 60
LISTEN_S = 1.0
"""How soon a caller that has left is noticed."""
DECODERS = 4
"""Pictures that are decoded at once: a limit on memory, a 40-megapixel picture takes some 250 MB on its way in."""

_EDIT_ID = re.compile(r"edit_[0-9a-f]{32}")
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)
T = TypeVar("T")

_SUBMIT_PROBLEMS = openapi.problem_responses(
    "malformed-body",
    "request-timeout",
    "payload-too-large",
    "unsupported-image",
    "unsupported-media-type",
    "invalid-parameter",
    "image-too-many-pixels",
    "mask-size-mismatch",
    "queue-full",
    "unavailable",
)

router = APIRouter(tags=["edits"])


def _intake(request: Request) -> Intake:
    intake: Intake = request.app.state.intake
    return intake


async def _in_thread(call: Callable[[], T]) -> T:
    return await to_thread.run_sync(call)


@router.post("/edits", include_in_schema=False)
@router.post(
    "/v1/edits",
    status_code=202,
    summary="Edit a picture by instruction",
    openapi_extra=openapi.CREATE_EDIT,
    responses={
        202: openapi.edit_response("Accepted: the edit is stored and queued.", **openapi.LOCATION),
        200: openapi.edit_response("`Prefer: wait` was given and the edit is done.", **openapi.LOCATION),
        **_SUBMIT_PROBLEMS,
    },
)
async def create_edit(request: Request) -> Response:
    """Takes one picture and what to change in it, and answers at once with the queued edit; its address has the result.

    Give `instruction` (once, or once per sub-instruction) or `instructions`. Unknown or repeated fields are refused.
    `POST /edits` is the same.
    """
    return await _create(request)


@router.post(
    "/v1/masks",
    status_code=202,
    summary="See where instructions would act",
    openapi_extra=openapi.CREATE_MASKS,
    responses={
        202: openapi.edit_response("Accepted: stored and queued.", **openapi.LOCATION),
        200: openapi.edit_response("`Prefer: wait` was given and the masks are there.", **openapi.LOCATION),
        **_SUBMIT_PROBLEMS,
    },
)
async def create_masks(request: Request) -> Response:
    """One denoising step instead of an edit: masks and attention maps, and no picture.

    Takes the form of the edit that is to follow (but `method`) and answers in the same shape, under the same addresses.
    With the same fields and seed, the edit has these masks; sent back as its masks, they give the same picture.
    """
    return await _create(request, masks_only=True)


async def _create(request: Request, *, masks_only: bool = False) -> Response:
    intake = _intake(request)
    limiter: CapacityLimiter = request.app.state.decoders
    try:
        form = await forms.read_form(request, intake.settings)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    try:
        submit = partial(intake.submit, form, masks_only=masks_only)
        edit_id = await to_thread.run_sync(submit, limiter=limiter)
    finally:
        await forms.close(form)
    wait = _WAIT.search(request.headers.get("prefer", ""))
    seconds = min(int(wait[1]), MAX_WAIT_S) if wait else 0
    record = await _wait(request, edit_id, seconds)
    headers = {"Location": edit_url(edit_id)}
    if wait:
        headers["Preference-Applied"] = f"wait={seconds}"
    return _edit_response(record, 200 if record.terminal and wait else 202, headers)


@router.get(
    "/v1/edits/{edit_id}",
    summary="Look at an edit",
    responses={
        200: openapi.edit_response("The edit as it is now."),
        304: {"description": "Unchanged since the `ETag` that `If-None-Match` named."},
        **openapi.problem_responses("not-found", "expired", "unavailable"),
    },
)
async def get_edit(request: Request, edit_id: str) -> Response:
    """Status, progress and, when done, the addresses of the result, the masks and the attention maps."""
    record = await _find(request, edit_id)
    response = _edit_response(record, 200, {})
    if _matches(request, response.headers["etag"]):
        kept = {
            name: value for name, value in response.headers.items() if name in ("etag", "retry-after", "cache-control")
        }
        return Response(status_code=304, headers=kept)
    return response


@router.post(
    "/v1/edits/{edit_id}/cancel",
    summary="Cancel an edit",
    responses={
        200: openapi.edit_response("The edit: `canceled` if it waited, `canceling` if it runs, else as it ended."),
        **openapi.problem_responses("not-found", "expired", "unavailable"),
    },
)
async def cancel_edit(request: Request, edit_id: str) -> Response:
    """A waiting edit is canceled at once, a running one before its second next step. May be called again and again."""
    record = await _find(request, edit_id)
    await _in_thread(partial(_intake(request).cancel, record))
    return _edit_response(await _find(request, edit_id), 200, {})


@router.get(
    "/v1/edits/{edit_id}/files/{name}",
    summary="Fetch a file of an edit",
    response_class=FileResponse,
    responses={
        200: {"description": "The file's bytes.", "content": {"image/*": {}}},
        206: {"description": "The range that was asked for."},
        304: {"description": "Unchanged since the `ETag` that `If-None-Match` named."},
        **openapi.problem_responses("not-found", "expired", "unavailable"),
    },
)
async def get_file(request: Request, edit_id: str, name: str) -> Response:
    """`input.png`, `result.png` (or `.jpeg`, `.webp`), `mask-1.png`, `attention-1.png`, ... as the edit lists them."""
    record = await _find(request, edit_id)
    stored = record.files.get(name)
    if stored is None:
        raise Problem("not-found", f"the edit has no file {name!r}")
    headers = {"ETag": f'"{stored.sha256}"', "Cache-Control": "private, max-age=3600, immutable"}
    if _matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return await _in_thread(partial(_file_response, _intake(request), stored, headers))


def _file_response(intake: Intake, stored: StoredFile, headers: dict[str, str]) -> FileResponse:
    path = intake.blobs.path(stored.key)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise Problem("not-found", "the file is gone; the edit is about to expire") from None
    return FileResponse(path, headers=headers, media_type=stored.media_type, stat_result=status)


async def _find(request: Request, edit_id: str) -> EditRecord:
    """The record; an expired id is told from one that never was."""
    repository = _intake(request).repository
    if _EDIT_ID.fullmatch(edit_id):
        record = await _in_thread(partial(repository.get, edit_id))
        if record is not None:
            return record
        if await _in_thread(partial(repository.is_expired, edit_id)):
            raise Problem("expired", "the edit and its files have been removed after their retention time")
    raise Problem("not-found", "there is no edit of this id")


async def _wait(request: Request, edit_id: str, seconds: float) -> EditRecord:
    """The record, as soon as it is terminal or `seconds` have passed or the caller has left."""
    events: EventReader = request.app.state.events
    deadline = asyncio.get_running_loop().time() + seconds
    while (left := deadline - asyncio.get_running_loop().time()) > 0 and not await request.is_disconnected():
        if await events.wait_until_done(edit_id, min(left, LISTEN_S)):
            break
    return await _find(request, edit_id)


def _edit_response(record: EditRecord, status: int, headers: dict[str, str]) -> Response:
    body = view(record).model_dump_json().encode()
    headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers["Cache-Control"] = "no-cache"
    if not record.terminal:
        headers["Retry-After"] = "1"
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _matches(request: Request, etag: str) -> bool:
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in given.split(",")]
