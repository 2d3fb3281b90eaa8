"""How much one API key may ask for: requests in a minute, and open event streams. Counted in Redis, for all
processes together; `jobs.repository` counts the edits that wait or run."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from anyio import CancelScope
from fastapi.responses import JSONResponse
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from jobs.connection import RedisError
from jobs.settings import Settings
from service.problems import Problem

SLOT_TTL_S = 5
"""How soon the streams of a process that was killed count no more."""
RENEW_S = 1.5

_REDIS_TIME = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
"""
# Redis's clock, so that those of the processes need not agree.
_HOLD = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


# All that a process holds, each in the set of its owner; what has fallen out meanwhile is put back.
_RENEW = """
local ends = tonumber(redis.call('TIME')[1]) + tonumber(ARGV[1])
for i, name in ipairs(KEYS) do
  local members = {}
  for slot in string.gmatch(ARGV[i + 1], '%S+') do
    table.insert(members, ends)
    table.insert(members, slot)
  end
  for first = 1, #members, 1000 do
    redis.call('ZADD', name, unpack(members, first, math.min(first + 999, #members)))
  end
  redis.call('EXPIRE', name, ARGV[1])
end
"""


class TooManyRequests(Problem):
    """429 that says when the next request would be taken."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        super().__init__("quota-exceeded", f"{limit} requests of this key in a minute; send them more slowly")
        self._retry_after_s = retry_after_s

    def response(self, instance: str, headers: dict[str, str] | None = None) -> JSONResponse:
        response = super().response(instance, headers)
        response.headers["Retry-After"] = str(self._retry_after_s)
        return response


class Quotas:
    """Needs a client that decodes."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._per_minute = RateLimitItemPerMinute(settings.max_requests_per_minute)
        # With a pool given, the address serves only to choose the kind of storage.
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="foi:requests",
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # documented, and not in its types
        )
        # The library's scripts are given the time by each process; in front of them stands Redis's clock. The list is
        # cut first, as the library does last: a Redis that is full would refuse the other order, and with it reading
        # and deleting.
        bridge: Any = storage.bridge
        seconds = self._per_minute.get_expiry()
        bridge.lua_acquire_moving_window = redis.register_script(
            _REDIS_TIME
            + "ARGV[1] = now\nredis.call('LTRIM', KEYS[1], 0, ARGV[2] - 1)\n"
            + bridge.SCRIPT_ACQUIRE_MOVING_WINDOW.decode()
        )
        bridge.lua_moving_window = redis.register_script(
            _REDIS_TIME + f"ARGV[1] = now - {seconds}\n" + bridge.SCRIPT_MOVING_WINDOW.decode()
        )
        self._requests = MovingWindowRateLimiter(storage)
        self._max_streams = settings.max_streams_per_key
        self._hold = redis.register_script(_HOLD)
        self._renew = redis.register_script(_RENEW)
        self._slots: dict[str, str] = {}
        self._renewal: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def count_request(self, owner: str) -> None:
        """Raises the Problem where the last minute was too busy; what is refused does not count."""
        if await self._requests.hit(self._per_minute, owner):
            return
        window = await self._requests.get_window_stats(self._per_minute, owner)
        seconds, microseconds = await self._redis.time()
        now = seconds + microseconds / 1e6
        wait_s = 0 if window.remaining else math.ceil(window.reset_time - now)
        raise TooManyRequests(self._per_minute.amount, max(1, wait_s))

    @asynccontextmanager
    async def stream(self, owner: str) -> AsyncIterator[None]:
        """One of the owner's event streams, while the block runs. Raises the Problem where there are too many."""
        name, slot = f"foi:streams:{owner}", uuid.uuid4().hex
        if not await self._hold(keys=[name], args=[slot, self._max_streams, SLOT_TTL_S]):
            raise Problem("quota-exceeded", f"{self._max_streams} event streams of this key are open; close one")
        self._slots[slot] = name
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew_all())
        try:
            yield
        finally:
            del self._slots[slot]
            with CancelScope(shield=True), suppress(RedisError):  # the caller's leaving cancels all but this
                await self._redis.zrem(name, slot)

    async def _renew_all(self) -> None:
        while self._slots:
            await asyncio.sleep(RENEW_S)
            slots, sets = dict(self._slots), defaultdict(list)
            for slot, name in slots.items():
                sets[name].append(slot)
            with suppress(RedisError):
                await self._renew(keys=list(sets), args=[SLOT_TTL_S, *map(" ".join, sets.values())])
                for slot in slots.keys() - self._slots.keys():  # ended meanwhile, and put back by this
                    await self._redis.zrem(slots[slot], slot)
