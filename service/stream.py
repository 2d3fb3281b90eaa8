"""The event stream of an edit (Server-Sent Events, HTML Living Standard): it resumes where it was cut."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from jobs.connection import RedisError
from jobs.records import EditRecord
from jobs.views import view
from service import auth, lookup, openapi
from service.events import START, Event, EventHub, Position

RECONNECT_MS = 1000

router = APIRouter(tags=["edits"])


class NothingFollowsError(Exception):
    """The listener has heard `done`. 204 is what stops an EventSource from coming again (HTML Living Standard,
    section 9.2.3)."""


async def nothing_follows(_request: Request, _error: Exception) -> Response:
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


@dataclass(frozen=True)
class Start:
    """Where a listener begins: after the event `after`, with the edit's present state first unless it resumes. `done`:
    how the stream of an edit that has ended ends."""

    edit_id: str
    caller: auth.Caller
    after: Position
    snapshot: str | None
    done: Event | None


async def last_seen(
    request: Request,
    edit_id: str,
    caller: auth.StreamReader,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event that was seen: goes on after it.")
    ] = None,
) -> Position | None:
    """The id that the listener sends, if it is one. Raises NothingFollowsError, and the Problem."""
    record = await lookup.find(request, edit_id, caller)
    seen = Position.of(last_event_id) if last_event_id is not None else None
    if seen is not None and (done := await _done(request, record)) is not None and seen >= _position(done):
        raise NothingFollowsError
    return seen


async def start(
    request: Request,
    edit_id: str,
    caller: auth.StreamReader,
    seen: Annotated[Position | None, Depends(last_seen)],
    _: auth.StreamSlot,
) -> Start:
    """Answers what is wrong before the stream begins. An id that is unknown, or of an event that was trimmed, begins
    anew."""
    events: EventHub = request.app.state.events
    if seen is not None and await events.knows(edit_id, seen):
        record = await lookup.find(request, edit_id, caller)
        return Start(edit_id, caller, seen, None, await _done(request, record))
    # Read before the record: what happens in between comes twice, in the state and as its event, and is not lost.
    latest = await events.latest(edit_id, 2)
    record = await lookup.find(request, edit_id, caller)
    if latest and latest[0].type == "done":
        latest = latest[1:]  # a stream always ends with it
    place, eta_s = await lookup.in_thread(partial(lookup.intake(request).estimate, record))
    after = _position(latest[0]) if latest else START
    return Start(edit_id, caller, after, view(record, place, eta_s).model_dump_json(), await _done(request, record))


@router.get(
    "/v1/edits/{edit_id}/events",
    summary="Follow an edit",
    response_class=EventSourceResponse,
    responses={
        200: {"description": "The stream; it ends after `done`."},
        204: {"description": "`Last-Event-ID` is that of `done`: nothing follows, and there is no need to come again."},
        **openapi.problem_responses(*auth.PROBLEMS, "quota-exceeded", "not-found", "expired", "unavailable"),
    },
)
async def get_events(request: Request, start: Annotated[Start, Depends(start)]) -> AsyncIterator[ServerSentEvent]:
    """Server-Sent Events. The first is `status` with the whole edit as it is; then come, each with an id:

    - `status`: `{"status"}`, `progress`: `{"step", "steps", "stage"}`, `preview`: `{"url"}` (a small JPEG as a data
      URL; only where `previews` was asked for)
    - `mask` and `output`: as they stand in the edit, when it has succeeded
    - `done`: `{"status"}`, always the last

    After a broken connection send the last id as `Last-Event-ID` (browsers do): nothing is lost and nothing comes
    twice, whatever was restarted meanwhile. A comment comes every 15 seconds where nothing else does.
    """
    if start.snapshot is not None:
        yield ServerSentEvent(raw_data=start.snapshot, event="status", id=str(start.after), retry=RECONNECT_MS)
    hub: EventHub = request.app.state.events
    source = _live(request, start) if start.done is None else _replayed(request, start, start.done)
    async with aclosing(source) as events:
        async for event in events:
            if (shown := await hub.shown(start.edit_id, event)) is not None:
                yield ServerSentEvent(raw_data=shown.data, event=shown.type, id=shown.id)


class StreamToken(BaseModel):
    """Reads the events of one edit, and nothing else."""

    token: str
    url: str = Field(description="Of the events, with the token: for `new EventSource(url)`.")
    expires_at: datetime = Field(description="A stream that is open then goes on; to come again takes a new token.")


@router.post(
    "/v1/edits/{edit_id}/events/token",
    summary="Make a token for an edit's events",
    response_model=StreamToken,
    responses=openapi.problem_responses(*auth.PROBLEMS, "not-found", "expired", "quota-exceeded", "unavailable"),
)
async def make_token(request: Request, response: Response, edit_id: str, caller: auth.Reader) -> StreamToken:
    """For browsers' EventSource, which can send no API key: five minutes to open the stream with `?token=` instead. It
    ends with the key that it was made with."""
    await lookup.find(request, edit_id, caller)
    token, expires_at = await auth.stream_token(request, caller, edit_id)
    response.headers["Cache-Control"] = "no-store"
    return StreamToken(token=token, url=f"/v1/edits/{edit_id}/events?token={token}", expires_at=expires_at)


async def _live(request: Request, start: Start) -> AsyncGenerator[Event]:
    """Until `done`, or until the caller has to come again: with another key, or to another process."""
    events: EventHub = request.app.state.events
    with (
        events.listening(start.edit_id, start.after) as listener,
        auth.until_revoked(request, start.caller, listener.end),
    ):
        while not listener.over:
            for event in await listener.news():
                if listener.over:
                    return
                yield event
                if event.type == "done":
                    return


async def _replayed(request: Request, start: Start, done: Event) -> AsyncGenerator[Event]:
    """The rest of what an edit that has ended has told."""
    events: EventHub = request.app.state.events
    try:
        rest = await events.since(start.edit_id, start.after)
    except RedisError:
        return  # the caller comes again, with the last id
    for event in rest:
        yield event
    if not rest or rest[-1].type != "done":
        yield done


async def _done(request: Request, record: EditRecord) -> Event | None:
    """The last event of an edit that has ended; made anew where it was trimmed, after everything that is left."""
    if record.outcome is None:
        return None
    events: EventHub = request.app.state.events
    latest = await events.latest(record.submission.id)
    if latest and latest[0].type == "done":
        return latest[0]
    last = _position(latest[0]) if latest else START
    ended = Position(int(record.outcome.completed_at.timestamp() * 1000), 0)
    position = max(ended, Position(last.ms, last.number + 1))
    return Event(str(position), "done", json.dumps({"status": record.outcome.status}))


def _position(event: Event) -> Position:
    position = Position.of(event.id)
    assert position is not None, "ids of Redis Streams are positions"
    return position
