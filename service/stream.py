"""The event stream of an edit (Server-Sent Events, HTML Living Standard): it resumes where it was cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from jobs.connection import RedisError
from jobs.views import view
from service import auth, lookup, openapi
from service.events import Event, EventReader

LISTEN_S = 0.5
"""How soon a key that was revoked is noticed."""
RECONNECT_MS = 1000

router = APIRouter(tags=["edits"])


@dataclass(frozen=True)
class Listener:
    """Where a listener begins: after the event `after`, with the edit's present state first unless it resumes."""

    request: Request
    edit_id: str
    after: str
    snapshot: str | None


async def listener(
    request: Request,
    edit_id: str,
    caller: auth.Reader,
    _: auth.StreamSlot,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event that was seen: goes on after it.")
    ] = None,
) -> Listener:
    """Answers what is wrong before the stream begins. An id that is unknown, or of an event that was trimmed, begins
    anew."""
    events: EventReader = request.app.state.events
    await lookup.find(request, edit_id, caller)
    if last_event_id is not None and await events.knows(edit_id, last_event_id):
        return Listener(request, edit_id, last_event_id, snapshot=None)
    # Read before the record: what happens in between comes twice, in the state and as its event, and is not lost.
    latest = await events.latest(edit_id, 2)
    record = await lookup.find(request, edit_id, caller)
    if latest and latest[0].type == "done":
        latest = latest[1:]  # a stream always ends with it
    position, eta_s = await lookup.in_thread(partial(lookup.intake(request).estimate, record))
    return Listener(
        request, edit_id, latest[0].id if latest else "0-0", view(record, position, eta_s).model_dump_json()
    )


@router.get(
    "/v1/edits/{edit_id}/events",
    summary="Follow an edit",
    response_class=EventSourceResponse,
    responses={
        200: {"description": "The stream; it ends after `done`."},
        **openapi.problem_responses(*auth.PROBLEMS, "quota-exceeded", "not-found", "expired", "unavailable"),
    },
)
async def get_events(start: Annotated[Listener, Depends(listener)]) -> AsyncIterator[ServerSentEvent]:
    """Server-Sent Events. The first is `status` with the whole edit as it is; then come, each with an id:

    - `status`: `{"status"}`, `progress`: `{"step", "steps", "stage"}`, `preview`: `{"url"}` (a small JPEG as a data
      URL; only where `previews` was asked for)
    - `mask` and `output`: as they stand in the edit, when it has succeeded
    - `done`: `{"status"}`, always the last

    After a broken connection send the last id as `Last-Event-ID` (browsers do): nothing is lost and nothing comes
    twice, whatever was restarted meanwhile. A comment comes every 15 seconds where nothing else does.
    """
    after = start.after
    if start.snapshot is not None:
        yield ServerSentEvent(raw_data=start.snapshot, event="status", id=after, retry=RECONNECT_MS)
    events: EventReader = start.request.app.state.events
    try:
        while await auth.still_valid(start.request):
            for event in await events.news(start.edit_id, after, LISTEN_S):
                after = event.id
                if (shown := await events.shown(start.edit_id, event)) is not None:
                    yield _sent(shown)
                if event.type == "done":
                    return
            if not await events.latest(start.edit_id):
                return  # its retention is over
    except RedisError:
        return  # the caller comes again, with the last id


def _sent(event: Event) -> ServerSentEvent:
    return ServerSentEvent(raw_data=event.data, event=event.type, id=event.id)
