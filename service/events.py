"""The events of an edit, read from its Redis Stream as they come."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from redis.asyncio import Redis

from jobs.repository import events_key, preview_key

MAX_LISTENERS = 4096
"""Each listener holds a connection while it waits."""
_EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


class Event(NamedTuple):
    """`data` is JSON."""

    id: str
    type: str
    data: str


class EventReader:
    """Connects lazily, and from the event loop that uses it."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(redis_url, decode_responses=True, max_connections=MAX_LISTENERS)

    async def close(self) -> None:
        await self._redis.aclose()

    async def latest(self, edit_id: str, count: int = 1) -> list[Event]:
        """The last events, the newest first."""
        return _events(await self._redis.xrevrange(events_key(edit_id), count=count))

    async def knows(self, edit_id: str, event_id: str) -> bool:
        """Whether it is the id of an event that is still there."""
        if not _EVENT_ID.fullmatch(event_id):
            return False
        return bool(await self._redis.xrange(events_key(edit_id), event_id, event_id))

    async def news(self, edit_id: str, after: str, seconds: float) -> list[Event]:
        """What happened after the event `after`; waits for up to `seconds` (at least one millisecond)."""
        key = events_key(edit_id)
        found: Any = await self._redis.xread({key: after}, block=max(1, round(seconds * 1000)))
        return _events(found[0][1]) if found else []

    async def shown(self, edit_id: str, event: Event) -> Event | None:
        """The event with its data. None for a preview that a later one has replaced, or that is too old."""
        if event.type != "preview" or event.data != "{}":
            return event
        kept: Any = await self._redis.get(preview_key(edit_id))
        event_id, _, data = str(kept or "").partition(" ")
        return event._replace(data=data) if event_id == event.id else None

    async def wait_until_done(self, edit_id: str, seconds: float) -> bool:
        """Whether the edit has ended (or is gone), as soon as it has, or after `seconds`."""
        last = await self.latest(edit_id)
        if not last or last[0].type == "done":
            return True
        return any(event.type == "done" for event in await self.news(edit_id, last[0].id, seconds))


def _events(entries: Any) -> list[Event]:
    return [Event(event_id, fields["type"], fields["data"]) for event_id, fields in entries]
