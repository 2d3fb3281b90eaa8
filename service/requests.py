"""What goes around every request: its id, on every log line and in the response; and the hosts that are served."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Collection

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem

HEADER = "X-Request-ID"
_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_EXPOSED = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Link",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "WWW-Authenticate",
    HEADER,
)
_SAFE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class LoopbackHosts:
    """ASGI. Without keys the service is for this machine; a web page whose name was made to point here (DNS rebinding)
    sends its own name as Host, and is refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _LOOPBACK.fullmatch(Headers(scope=scope).get("host", "")):
            problem = Problem("forbidden", "without keys only this machine is served; set FOI_AUTH to keys, or to off")
            await problem.response(scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class OwnPages:
    """ASGI. Refuses what a page of another origin makes a browser send (cross-site request forgery), unless it only
    reads. Browsers say where a request comes from (`Sec-Fetch-Site`, W3C Fetch Metadata; `Origin`, RFC 6454); other
    clients send neither header."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        """`origins`: further ones whose pages may call."""
        self._app, self._origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _SAFE_METHODS or self._is_own(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        detail = (
            "a page of another origin sent this. The operator can let it: list its origin in FOI_CORS_ORIGINS, or, if "
            "it is this service's own page behind a proxy, say in FOI_PUBLIC_URL where that is"
        )
        await Problem("forbidden", detail).response(scope["path"])(scope, receive, send)

    def _is_own(self, headers: Headers) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin in self._origins:
            return True
        if site is not None:  # also where a proxy has changed the Host
            return site in ("same-origin", "none")
        return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()


def allow_origins(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Lets pages of these origins read the answers (CORS, Fetch Standard). No cookies are used, so none are allowed."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=_EXPOSED,
        allow_private_network=True,
    )


class LastAnswers:
    """ASGI. A request that is cut off because the service has to end (SIGTERM, and its grace is over) is told so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = scope["type"] != "http"

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if answered:
                raise
            problem = Problem("unavailable", "the service is being stopped; send the request again")
            await problem.response(scope["path"], {"Connection": "close"})(scope, receive, send)


class RequestIds:
    """ASGI. Goes around everything else, so that the answer to an unexpected error has its id too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _SAFE.fullmatch(given) else uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        # Not unbound: the server logs the traceback of an unexpected error after this, and each request has a context
        # of its own.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        await self._app(scope, receive, send_with_id)
