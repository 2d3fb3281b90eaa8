"""The files of an edit."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from jobs.records import StoredFile
from service import auth, conditional, lookup, openapi
from service.problems import Problem
from service.submit import Intake

router = APIRouter(tags=["edits"])


@router.get(
    "/v1/edits/{edit_id}/files/{name}",
    summary="Fetch a file of an edit",
    response_class=FileResponse,
    responses={
        200: {"description": "The file's bytes.", "content": {"image/*": {}}},
        206: {"description": "The range that was asked for."},
        304: {"description": "Unchanged since the `ETag` that `If-None-Match` named."},
        **openapi.problem_responses(
            *auth.PROBLEMS, "not-found", "expired", "range-not-satisfiable", "malformed-body", "unavailable"
        ),
    },
)
async def get_file(request: Request, edit_id: str, name: str, caller: auth.Reader) -> Response:
    """`input.png`, `result.png` (or `.jpeg`, `.webp`), `mask-1.png`, `attention-1.png`, ... as the edit lists them."""
    record = await lookup.find(request, edit_id, caller)
    stored = record.files.get(name)
    if stored is None:
        raise Problem("not-found", f"the edit has no file {name!r}")
    headers = {"ETag": f'"{stored.sha256}"', "Cache-Control": "private, max-age=3600, immutable"}
    if conditional.unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return await lookup.in_thread(partial(_file_response, lookup.intake(request), stored, headers))


def _file_response(intake: Intake, stored: StoredFile, headers: dict[str, str]) -> FileResponse:
    path = intake.blobs.path(stored.key)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise Problem("not-found", "the file is gone; the edit is about to expire") from None
    return FileResponse(path, headers=headers, media_type=stored.media_type, stat_result=status)
