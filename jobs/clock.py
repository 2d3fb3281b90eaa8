"""The clock that all processes share: Redis's. Hosts' own clocks may differ by more than a lease or a deadline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis

_EPOCH = datetime.fromtimestamp(0, UTC)


def now(redis: Redis) -> datetime:
    """The present by Redis's clock, in UTC. One round trip. Raises RedisError."""
    found: Any = redis.time()
    return _EPOCH + timedelta(seconds=found[0], microseconds=found[1])
