"""The event stream of an edit, over as many connections as it takes."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from foi_client.errors import AnswerError, ApiError, FoiError, UnreachableError
from foi_client.events import DoneEvent, FrameParser, read_event
from foi_client.patience import Patience
from foi_client.retries import refusal
from foi_client.steps import Close, Emit, Flow, Open, Read, Request

IDLE_S = 40.0
"""Of silence, after which a connection is given up for dead; the service sends a comment every 15 seconds."""
LATE_S = 2.0
"""How much the caller's limit may be passed: httpx fixes the time for a read when the answer is opened."""


@dataclass
class _Place:
    """How far a listener has come."""

    last_id: str = ""
    done: bool = False


def listen(path: str, patience: Patience, *, wait_for_quota: bool) -> Flow[None]:
    """Emits every event once, to `done`. Raises ApiError (429 too, unless `wait_for_quota`), UnreachableError,
    AnswerError, WaitTimeout."""
    place = _Place()
    while not place.done:
        failure = yield from _connection(path, place, patience)
        if failure is None:
            continue
        if isinstance(failure, ApiError) and failure.status == httpx.codes.TOO_MANY_REQUESTS and not wait_for_quota:
            raise failure
        yield Close()
        yield from patience.again(failure)


def _connection(path: str, place: _Place, patience: Patience) -> Flow[FoiError | None]:
    """From the place on. Why it ended too early; None: it did not, or a new one is to have less time."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": place.last_id} if place.last_id else {})
    timeout = patience.timeout(IDLE_S)
    request = Request("GET", f"{path}/events", timeout, headers=headers)
    try:
        response: httpx.Response = yield Open(request)
        if not response.is_success:
            return refusal(request, response)
        if response.status_code == httpx.codes.NO_CONTENT:  # the last id was that of `done`
            place.done = True
            yield Close()
            return None
        return (yield from _read(path, place, patience, timeout.read or IDLE_S))
    except httpx.RequestError as error:
        return refusal(request, error)


def _read(path: str, place: _Place, patience: Patience, read_s: float) -> Flow[FoiError | None]:
    """`read_s`: how long one read may take."""
    parser = FrameParser()
    while (chunk := (yield Read())) is not None:
        patience.heard()
        for frame in parser.feed(chunk):
            try:
                event = read_event(frame)
            except (KeyError, TypeError, ValueError) as error:
                raise AnswerError(f"{path}: an event that cannot be read ({error!r})") from error
            place.last_id = frame.id
            yield Emit(event)
            if isinstance(event, DoneEvent):
                place.done = True
                yield Close()
                return None
        if read_s - patience.left() > LATE_S:
            return None
    return UnreachableError(f"{path}: the event stream ended early")
