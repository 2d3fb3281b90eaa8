"""Every error that the service answers with, and the only place where errors become HTTP (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from obstore.exceptions import BaseError as StoreError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from foi_core.errors import InvalidParameter
from jobs.connection import RedisError
from jobs.logs import get_logger

MEDIA_TYPE = "application/problem+json"
KINDS: dict[str, tuple[int, str]] = {
    "malformed-body": (400, "The body cannot be read"),
    "unauthorized": (401, "An API key is needed"),
    "forbidden": (403, "This caller may not do this"),
    "not-found": (404, "There is nothing at this address"),
    "method-not-allowed": (405, "This address does not know this method"),
    "request-timeout": (408, "The body did not arrive in time"),
    "idempotency-in-flight": (409, "A request with this Idempotency-Key is being answered"),
    "expired": (410, "The edit has expired"),
    "payload-too-large": (413, "The body is too large"),
    "unsupported-image": (415, "The picture cannot be read"),
    "unsupported-media-type": (415, "The body is not multipart/form-data"),
    "invalid-parameter": (422, "A field is not allowed"),
    "image-too-many-pixels": (422, "The picture has too many pixels"),
    "mask-size-mismatch": (422, "A mask has another size than the picture"),
    "range-not-satisfiable": (416, "The file has no such range"),
    "idempotency-mismatch": (422, "The Idempotency-Key was used for something else"),
    "webhook-url-forbidden": (422, "The webhook's address is not allowed"),
    "quota-exceeded": (429, "Too much at once"),
    "internal": (500, "Something went wrong on our side"),
    "not-ready": (503, "The service is not ready"),
    "queue-full": (503, "Too many edits are waiting"),
    "no-workers": (503, "No worker is there"),
    "unavailable": (503, "The edit could not be accepted"),
}
RETRY_AFTER_S = {
    "idempotency-in-flight": 1,
    "quota-exceeded": 5,
    "queue-full": 10,
    "no-workers": 10,
    "unavailable": 5,
    "not-ready": 5,
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 400: "malformed-body", 413: "payload-too-large"}

log = get_logger(__name__)


class Problem(Exception):
    """`slug` is one of KINDS; `errors` name the fields (JSON pointers into the form); `extra` are further members."""

    def __init__(
        self, slug: str, detail: str, errors: Sequence[dict[str, str]] = (), extra: dict[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.errors = list(errors)
        self.extra = extra or {}

    def body(self, instance: str) -> dict[str, Any]:
        """The problem document."""
        status, title = KINDS[self.slug]
        return {
            "type": f"/problems/{self.slug}",
            "title": title,
            "status": status,
            "detail": self.detail,
            "instance": instance,
            **self.extra,
            **({"errors": self.errors} if self.errors else {}),
        }

    def response(self, instance: str, headers: dict[str, str] | None = None) -> JSONResponse:
        status, _ = KINDS[self.slug]
        headers = dict(headers or {})
        if self.slug in RETRY_AFTER_S:
            headers["Retry-After"] = str(RETRY_AFTER_S[self.slug])
        if self.slug in ("payload-too-large", "request-timeout"):
            headers["Connection"] = "close"  # the rest of the body is never read
        return JSONResponse(self.body(instance), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def invalid(errors: Sequence[InvalidParameter]) -> Problem:
    """422 for values that the form or the spec refused: one entry per field."""
    entries = [{"pointer": _pointer(error.field), "detail": _detail(error)} for error in errors]
    return Problem("invalid-parameter", "; ".join(entry["detail"] for entry in entries), entries)


def _detail(error: InvalidParameter) -> str:
    return f"{error.field}: missing; expected {error.allowed}" if error.value is None else str(error)


def _pointer(field: str) -> str:
    """`instructions[0].keyword` -> `/instructions/0/keyword` (RFC 6901)."""
    path = field.replace("~", "~0").replace("/", "~1")
    return "/" + path.replace("[", "/").replace("]", "").replace(".", "/")


def install(app: FastAPI) -> None:
    """Handlers for everything that can be raised under a route, and for routes that do not exist."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    for outage in (RedisError, StoreError, OSError):
        app.add_exception_handler(outage, _outage)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return error.response(request.url.path)


async def _http(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    slug, headers, path = _BY_STATUS.get(error.status_code, "internal"), dict(error.headers or {}), request.url.path
    detail = f"{request.method} {path}: {error.detail}"
    if slug == "not-found":
        detail = f"{path} is no address of this service; /docs shows all there are"
    elif slug == "method-not-allowed":
        headers["Allow"] = ", ".join(_methods(request))
        detail = f"{path} does not know {request.method}, but {headers['Allow']}"
    return Problem(slug, detail).response(path, headers)


def _methods(request: Request) -> list[str]:
    """Of all routes at this address; the framework would name those of the first one."""
    found = []
    for method in _METHODS:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            found.append(method)
    return found


async def _validation(request: Request, error: Exception) -> JSONResponse:
    """Parameters of the address and the headers, which FastAPI reads."""
    assert isinstance(error, RequestValidationError)
    entries = []
    for found in error.errors():
        where, *path = map(str, found["loc"])
        shown = repr(found["input"])[:80]
        detail = f"{'.'.join(path)}: {shown} in the {where} is not allowed; {found['msg']}"
        entries.append({"pointer": "/" + "/".join((where, *path)), "detail": detail})
    return Problem("invalid-parameter", "; ".join(entry["detail"] for entry in entries), entries).response(
        request.url.path
    )


async def _outage(request: Request, error: Exception) -> JSONResponse:
    reason = f"{type(error).__name__}: {error}"
    log.error("redis or blob store failed", path=request.url.path, reason=reason)
    return Problem("unavailable", "the queue or the store does not answer; try again").response(request.url.path)


async def _unexpected(request: Request, _error: Exception) -> JSONResponse:
    """Starlette logs the traceback: it raises the error again after this answer."""
    return Problem("internal", "an unexpected error; it has been logged").response(request.url.path)
