"""The files of an edit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from starlette.datastructures import MutableHeaders, UploadFile

from jobs.blobs import CHUNK, BlobStore
from jobs.records import INPUT_FILE, StoredFile, Submission
from service import auth, conditional, lookup, openapi
from service.images import IN_MEMORY_BYTES, Reader
from service.problems import Problem

router = APIRouter(tags=["edits"])

VIEWERS = 2
"""Pictures that are made for those who look at them: submits have decoders of their own."""
GONE = "the file is gone; the edit is about to expire"
_SAFE = {"X-Content-Type-Options": "nosniff"}


@router.head("/v1/edits/{edit_id}/files/{name}", include_in_schema=False)
@router.get(
    "/v1/edits/{edit_id}/files/{name}",
    summary="Fetch a file of an edit",
    response_class=FileResponse,
    responses={
        200: {"description": "The file's bytes.", "content": {"image/*": {}}},
        206: {"description": "The range that was asked for."},
        302: {"description": "Where the file can be fetched for a while, where files are kept on an object store."},
        304: {"description": "Unchanged since the `ETag` that `If-None-Match` named."},
        **openapi.problem_responses(
            *auth.PROBLEMS, "not-found", "expired", "range-not-satisfiable", "quota-exceeded", "unavailable"
        ),
    },
)
async def get_file(request: Request, edit_id: str, name: str, caller: auth.Reader) -> Response:
    """`input.png`, `result.png` (or `.jpeg`, `.webp`), `mask-1.png`, `attention-1.png`, ... as the edit lists them."""
    record = await lookup.find(request, edit_id, caller)
    if name == INPUT_FILE:
        return await _input(request, record.submission)
    stored = record.files.get(name)
    if stored is None:
        raise Problem("not-found", f"the edit has no file {name!r}")
    headers = {"ETag": f'"{stored.sha256}"', "Cache-Control": "private, max-age=3600, immutable", **_SAFE}
    if conditional.unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    path = lookup.intake(request).blobs.path(stored.key)
    if path is None:
        return await lookup.in_thread(partial(_elsewhere, request, stored))
    return await lookup.in_thread(partial(_from_folder, request, path, stored, headers))


async def _input(request: Request, submission: Submission) -> Response:
    """Made when it is asked for, which is seldom: kept is what was sent, often a tenth of it."""
    etag = f'"{submission.upload.sha256}"'
    headers = {"ETag": f"W/{etag}", "Cache-Control": "private, max-age=3600", **_SAFE}
    if conditional.unchanged(request, etag):
        return Response(status_code=304, headers=headers)
    reader: Reader = request.app.state.pictures
    async with request.app.state.viewers:
        upload = await lookup.in_thread(partial(_fetched, lookup.intake(request).blobs, submission.upload))
        try:
            png = await reader.as_png(upload, submission.input.width * submission.input.height)
        finally:
            await upload.close()
    headers["Content-Length"] = str(png.size)
    return StreamingResponse(_pieces(png.file), headers=headers, media_type="image/png")


def _fetched(blobs: BlobStore, stored: StoredFile) -> UploadFile:
    """The file, on the disk where it is large."""
    upload = SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
    try:
        for piece in blobs.read(stored):
            upload.write(piece)
    except FileNotFoundError:
        raise Problem("not-found", GONE) from None
    return UploadFile(cast(BinaryIO, upload))


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from iter(partial(file.read, CHUNK), b"")


def _elsewhere(request: Request, stored: StoredFile) -> Response:
    """The caller's own cache must let go of the address well before it ends."""
    intake = lookup.intake(request)
    seconds = intake.settings.signed_url_s
    url = intake.blobs.signed_url(stored.key, "HEAD" if request.method == "HEAD" else "GET", seconds)
    return RedirectResponse(url, 302, headers={"Cache-Control": f"private, max-age={seconds // 2}", **_SAFE})


def _from_folder(request: Request, path: Path, stored: StoredFile, headers: dict[str, str]) -> Response:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise Problem("not-found", GONE) from None
    ranges = conditional.ranges(request, headers["ETag"], status.st_size)
    if ranges == []:
        problem = Problem("range-not-satisfiable", f"the file has {status.st_size} bytes")
        return problem.response(request.url.path, {"Content-Range": f"bytes */{status.st_size}"})
    _leave_only(request, ranges)
    return FileResponse(path, headers=headers, media_type=stored.media_type, stat_result=status)


def _leave_only(request: Request, ranges: list[conditional.Range] | None) -> None:
    """FileResponse answers plain text to what it cannot read: it gets to see what has been understood."""
    headers = MutableHeaders(scope=request.scope)
    del headers["range"], headers["if-range"]
    if ranges is not None:
        headers["range"] = "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)
