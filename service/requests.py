"""What goes around every request: its id, on every log line and in the response; and the hosts that are served."""

from __future__ import annotations

import re
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem

HEADER = "X-Request-ID"
_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
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
