"""What a flow asks of the outside. A flow is a generator that decides everything and does no input or output itself: it
yields steps, and gets their results; so one flow serves the synchronous and the asynchronous client, and a test."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from foi_client.forms import Form

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """`path` is below the client's address. `timeout` is set for each try. `repeatable`: it may be sent again where it
    may have arrived before. `follow`: redirects are followed; the API key goes to the client's own host only."""

    method: str
    path: str
    timeout: httpx.Timeout | None = None
    params: tuple[tuple[str, str], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    form: Form | None = None
    repeatable: bool = True
    follow: bool = False


@dataclass(frozen=True)
class Send:
    """Result: the whole httpx.Response. Raises httpx.RequestError."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Begins to read an answer, after the one before is closed. Result: the httpx.Response, read only where it is no
    success. Raises httpx.RequestError."""

    request: Request


@dataclass(frozen=True)
class Read:
    """Result: further bytes of the opened answer, or None at its end. Raises httpx.RequestError."""


@dataclass(frozen=True)
class Close:
    """Closes the opened answer; the end of a flow does so too."""


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that may block, like a file. Result: what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Something for the caller, before the end."""

    value: T


@dataclass(frozen=True)
class Ended(Generic[T]):
    """Made by `advance`: the flow has returned this."""

    value: T


Step = Send | Open | Read | Close | Sleep | Work | Emit[Any]
Flow = Generator[Step, Any, T]


def advance(flow: Flow[T], result: object = None) -> Step | Ended[T]:
    """The first step, or the one after the step with this result."""
    try:
        return flow.send(result)
    except StopIteration as end:
        return Ended(end.value)


def fail(flow: Flow[T], error: httpx.RequestError) -> Step | Ended[T]:
    """The step after one that raised."""
    try:
        return flow.throw(error)
    except StopIteration as end:
        return Ended(end.value)


def build(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    form = request.form
    return http.build_request(
        request.method,
        request.path,
        params=list(request.params) or None,
        headers=request.headers,
        data=form.texts if form else None,
        files=form.files if form else None,
        timeout=request.timeout,
    )
