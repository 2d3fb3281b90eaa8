"""The events of an edit, read from its Redis Stream as they come."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from jobs.repository import events_key


class EventReader:
    """Connects lazily, and from the event loop that uses it."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(redis_url, decode_responses=True)

    async def close(self) -> None:
        await self._redis.aclose()

    async def wait_until_done(self, edit_id: str, seconds: float) -> bool:
        """Whether the edit has ended (or is gone), as soon as it has, or after `seconds` (at least one millisecond)."""
        key = events_key(edit_id)
        last: Any = await self._redis.xrevrange(key, count=1)
        if not last or last[0][1]["type"] == "done":
            return True
        news: Any = await self._redis.xread({key: last[0][0]}, block=max(1, round(seconds * 1000)))
        return any(fields["type"] == "done" for _, entries in news for _, fields in entries)
