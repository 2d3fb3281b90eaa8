"""POST /v1/images/edits, as OpenAI's clients know it: their fields, their mask, their answer and their errors.

Only translated here. The edit is taken in, run and kept as every other is.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from foi_core.errors import InvalidParameter
from jobs.blobs import BlobStore
from jobs.interrupted import InterruptedEdits
from jobs.logs import get_logger
from jobs.records import EditRecord, Outcome, StoredFile
from jobs.views import view
from service import accept, auth, edits, forms, lookup, parsing
from service.fields import MAX_QUALITY, SCALARS, quality
from service.forms import Form
from service.images import Reader
from service.problems import Problem, invalid
from service.submit import Intake

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

RESPONSE_FORMATS = ("b64_json", "url")
HINTS: dict[str, Collection[str]] = {
    "model": (),
    "user": (),
    "safety_identifier": (),
    "quality": ("auto", "low", "medium", "high", "xhigh", "max", "standard"),
    "complexity": ("low", "medium", "high"),
    "input_fidelity": ("low", "high"),
    "moderation": ("auto", "low"),
    "background": ("auto", "opaque"),
    "stream": ("false",),
    "partial_images": ("0",),
}
"""OpenAI's fields that make no difference here. Values that would are refused; empty: there are none."""
THEIRS: dict[str, Collection[str]] = {
    "prompt": (),
    "size": (),
    "response_format": RESPONSE_FORMATS,
    "output_compression": (),
    **HINTS,
}
OURS = SCALARS.keys() - {"image_url", "output_quality"}
KNOWN = f"a known field: image and mask as files, {', '.join(sorted(THEIRS.keys() | OURS))}"

_OPEN, _CLOSE = '{"b64_json": "', '"}'
_EMPTY = _OPEN + _CLOSE

_STATUS = {410: 404, 415: 400, 422: 400}
_CODES = {"unauthorized": "invalid_api_key", "quota-exceeded": "rate_limit_exceeded"}
_OUR_FIELD = re.compile(r"\binstructions(\[\d+\]\.text)?(?=:)")

log = get_logger(__name__)


class OpenAIRoute(APIRoute):
    """Whatever error the service would answer with, in OpenAI's shape."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                handlers = request.app.exception_handlers
                kind = next(kind for kind in type(error).__mro__ if kind in handlers)
                if kind is Exception:
                    log.exception("unexpected error", path=request.url.path)
                return _in_their_shape(await handlers[kind](request, error))

        return answer


_PICTURE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": ["image", "prompt"],
    "properties": {
        "image": {**_PICTURE, "description": "One PNG, JPEG or WEBP; `image[]` is the same."},
        "prompt": {"type": "string", "description": "What to change."},
        "mask": {**_PICTURE, "description": "Of the picture's size; only where it is fully transparent may change."},
        "size": {"type": "string", "description": "`auto`, or the picture's own: the result has it."},
        "output_compression": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_QUALITY,
            "description": "Of a jpeg or webp: as `output_quality` of `POST /v1/edits`. A png has 100.",
        },
        "response_format": {"type": "string", "enum": [*RESPONSE_FORMATS], "default": RESPONSE_FORMATS[0]},
        **{name: SCALARS[name].schema for name in sorted(OURS)},
    },
    "additionalProperties": {"type": "string", "description": f"Accepted, no difference: {', '.join(HINTS)}."},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
        }
    },
}
_MEANINGS = {
    400: "The request is not allowed; `param` names the field.",
    401: "An API key is needed.",
    403: "The API key does not allow this.",
    404: "The edit was deleted meanwhile.",
    408: "The body did not arrive in time.",
    409: "The same request is being answered.",
    413: "The body is too large.",
    429: "Too much at once.",
    500: "The edit failed.",
    503: "The service cannot take or end the edit now.",
}

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


@router.post(
    "/v1/images/edits",
    summary="Edit a picture, for OpenAI's clients",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
    responses={
        200: {"description": "OpenAI's `ImagesResponse`, and `foi` with the edit's id, masks and metrics."},
        **{
            status: {"description": meaning, "content": {"application/json": {"schema": _ERROR}}}
            for status, meaning in _MEANINGS.items()
        },
    },
)
async def edit_image(request: Request, caller: auth.Submitter) -> Response:
    """`client.images.edit(image=..., prompt=..., mask=..., n=...)` of the `openai` package; waits for the result.

    The fields of `POST /v1/edits` may be sent as `extra_body`. Where the caller leaves, the edit is canceled, unless
    the request had an `Idempotency-Key` to ask for it again. Where the service is restarted, the edit goes on: the
    answer is 503 with its id, and the same request, sent again, gets its result.
    """
    intake = lookup.intake(request)
    try:
        form = await forms.read_form(request, intake.settings)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    try:
        theirs = await lookup.in_thread(partial(_their_fields, form))
        form = await _translated(form, theirs, request.app.state.pictures)
        again = "idempotency-key" in request.headers
        fingerprint = None if again else await lookup.in_thread(partial(form.fingerprint, "openai"))
        edit_id = await lookup.in_thread(partial(_interrupted, intake, caller.owner, fingerprint))
        if edit_id is None:
            edit_id = (await accept.submit(request, caller, form)).edit_id
    finally:
        await forms.close(form)
    record = await edits.wait_for_end(request, edit_id, caller, intake.settings.edit_timeout_s)
    if record.outcome is None and request.app.state.events.closing:
        if fingerprint is not None:
            leave = partial(InterruptedEdits(intake.repository.redis).leave, caller.owner, fingerprint, edit_id)
            await lookup.in_thread(leave)
        detail = f"the service is being restarted; the edit {edit_id} goes on: send the same request again to get it"
        raise Problem("unavailable", detail, extra={"edit_id": edit_id})
    if record.outcome is None:
        if not again:
            await lookup.in_thread(partial(intake.cancel, record))
        then = "send the request again with its Idempotency-Key" if again else "it was canceled"
        raise Problem("unavailable", f"the edit {edit_id} was not done in time; {then}")
    if record.outcome.error is not None:
        return _failed(record.outcome.error.type, record.outcome.error.detail)
    if record.outcome.status == "canceled":
        return _failed("edit-canceled", f"the edit {edit_id} was canceled")
    address = str(request.base_url).rstrip("/") if theirs.get("response_format") == "url" else None
    return await lookup.in_thread(partial(_succeeded, record, record.outcome, intake.blobs, address))


def _interrupted(intake: Intake, owner: str, fingerprint: str | None) -> str | None:
    """The edit that this same request was waiting for when the service ended, if it still is of use."""
    interrupted = InterruptedEdits(intake.repository.redis)
    while fingerprint is not None and (edit_id := interrupted.take(owner, fingerprint)) is not None:
        record = intake.repository.get(edit_id)
        if record is not None and record.status not in ("canceling", "canceled"):
            return edit_id
    return None


def _their_fields(form: Form) -> dict[str, str]:
    """Raises the Problem that names every wrong one."""
    values: dict[str, str] = {}
    wrong = [InvalidParameter(name, form.texts[name][0], KNOWN) for name in form.texts.keys() - THEIRS.keys() - OURS]
    for name, allowed in THEIRS.items():
        given = form.texts.get(name, [])
        if len(given) > 1:
            wrong.append(InvalidParameter(name, given, "one value"))
        elif given and allowed and given[0] not in allowed:
            wrong.append(InvalidParameter(name, given[0], " or ".join(allowed)))
        elif given:
            values[name] = given[0]
    try:
        _check_compression(values.get("output_compression"), form.texts.get("output_format", ["png"])[0])
    except InvalidParameter as error:
        wrong.append(error)
    if "prompt" not in values:
        wrong.append(InvalidParameter("prompt", None, "a sentence that says what to change"))
    else:
        try:
            parsing.split("prompt", values["prompt"])
        except InvalidParameter as error:
            wrong.append(error)
    if wrong:
        raise invalid(wrong)
    return values


def _check_compression(text: str | None, output_format: str) -> None:
    """OpenAI's: 100, its default, is the best quality, and all that a PNG can have."""
    if text is not None and quality("output_compression", text) < MAX_QUALITY and output_format == "png":
        raise InvalidParameter("output_compression", text, f"{MAX_QUALITY} for a png, or output_format jpeg or webp")


async def _translated(form: Form, theirs: dict[str, str], reader: Reader) -> Form:
    """The form of POST /v1/edits that says the same. Raises the Problem."""
    files = dict(form.files)
    pictures = [files.pop(name) for name in ("image", "image[]") if name in files]
    if len(pictures) != 1:
        raise invalid([InvalidParameter("image", len(pictures) or None, "one picture, as a file")])
    if (size := theirs.get("size", "auto")) != "auto":
        width, height = await reader.check(pictures[0])
        if size != f"{width}x{height}":
            allowed = f"auto or {width}x{height}: the result has the picture's own size"
            raise invalid([InvalidParameter("size", size, allowed)])
    if "mask" in files:
        files["mask"] = await reader.transparent(files["mask"], "mask")
        await form.files["mask"].close()
    mask = "mask" if "mask" in files else None
    parts = await lookup.in_thread(partial(parsing.split, "prompt", theirs["prompt"]))
    texts = {name: given for name, given in form.texts.items() if name in OURS}
    if "output_compression" in theirs and texts.get("output_format", ["png"]) != ["png"]:
        texts["output_quality"] = [theirs["output_compression"]]
    instructions = json.dumps([{"text": text, "mask": mask} for text in parts])
    return Form({**texts, "instructions": [instructions]}, {**files, "image": pictures[0]})


def _succeeded(record: EditRecord, outcome: Outcome, blobs: BlobStore, address: str | None) -> Response:
    """`address`: of the service, where the answer is to have addresses. Raises FileNotFoundError."""
    seen = view(record)
    first = outcome.outputs[0]
    body = {
        "created": int(outcome.completed_at.timestamp()),
        "background": "opaque",
        "output_format": record.input.output_format,
        "size": f"{first.width}x{first.height}",
        "foi": {
            "edit_id": seen.id,
            **seen.model_dump(mode="json", include={"outputs", "masks", "metrics", "warnings"}),
        },
    }
    if address is not None:
        return JSONResponse({**body, "data": [{"url": address + output.url} for output in seen.outputs]})
    return _with_files(body, [outcome.files[output.file] for output in outcome.outputs], blobs)


def _with_files(body: dict[str, Any], files: Sequence[StoredFile], blobs: BlobStore) -> Response:
    """The answer with the files in it, read and encoded while it is sent: none of them is in memory whole."""
    begin, *between, end = json.dumps({**body, "data": [{"b64_json": ""} for _ in files]}).split(_EMPTY)
    texts = [begin + _OPEN, *(_CLOSE + text + _OPEN for text in between), _CLOSE + end]
    length = sum(map(len, texts)) + sum(4 * -(-file.size // 3) for file in files)

    def pieces() -> Iterator[bytes]:
        for text, file in zip(texts, files, strict=False):
            yield text.encode()
            yield from map(base64.b64encode, blobs.read(file))
        yield texts[-1].encode()

    content = pieces()
    beginning = [next(content), next(content)]  # a store that does not answer is told of as an error, not in the middle
    headers = {"Content-Length": str(length)}
    return StreamingResponse(chain(beginning, content), headers=headers, media_type="application/json")


def _failed(problem_type: str, detail: str) -> Response:
    """An edit that ended without a result. It would again: OpenAI's clients are told not to repeat it."""
    slug = problem_type.rpartition("/")[2]
    status = 400 if slug in ("invalid-parameter", "edit-canceled", "unsafe-result") else 500
    return _error(status, slug, detail, None, {"X-Should-Retry": "false"})


def _in_their_shape(answer: JSONResponse) -> Response:
    """A problem document as OpenAI's error object."""
    problem = json.loads(bytes(answer.body))
    slug, status = problem["type"].rpartition("/")[2], _STATUS.get(answer.status_code, answer.status_code)
    kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
    pointer = next((error["pointer"] for error in problem.get("errors", ())), "/")
    field = pointer.split("/")[1].removesuffix("[]")
    param = "prompt" if field == "instructions" else field or None
    return _error(status, slug, _OUR_FIELD.sub("prompt", problem["detail"]), param, kept, problem.get("edit_id"))


def _error(
    status: int, slug: str, message: str, param: str | None, headers: dict[str, str], edit_id: str | None = None
) -> Response:
    kind = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": _CODES.get(slug, slug.replace("-", "_"))}
    if edit_id is not None:
        error["edit_id"] = edit_id
    return JSONResponse({"error": error}, status_code=status, headers=headers)
