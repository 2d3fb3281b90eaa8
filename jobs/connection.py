"""Clients of Redis: one that answers quickly whether it works, one that outlives an outage."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

__all__ = ["RedisConnectionError", "RedisError", "RedisTimeoutError", "connect", "connect_async"]

PATIENT_RETRIES = 60
QUICK_RETRIES = 1
"""Enough for a connection that Redis closed while it was idle."""
ASYNC_CONNECTIONS, ASYNC_TIMEOUT_S = 32, 10


def connect(url: str, *, patient: bool = False, decode: bool = False) -> Redis:
    """A client with its own pool. `patient`: a worker's, which waits about two minutes for Redis to come back, or to
    have memory again.

    RQ needs bytes, our own keys are text (`decode`). RQ also changes its pool's socket timeout, hence one client for
    each worker thread.
    """
    retries = PATIENT_RETRIES if patient else QUICK_RETRIES
    cap = 2.0 if patient else 0.2
    options: dict[str, Any] = {
        "retry": Retry(ExponentialBackoff(cap=cap, base=0.1), retries),
        "retry_on_error": [RedisConnectionError, RedisTimeoutError, *([OutOfMemoryError] if patient else [])],
        "socket_timeout": 10,
        "decode_responses": decode,
    }
    if not url.startswith("unix:"):
        options["socket_connect_timeout"] = 2
    client: Redis = Redis.from_url(url, **options)
    return client


def connect_async(url: str) -> AsyncRedis:
    """A client for one event loop, which connects when it is first used. It answers text. Whoever finds none of its
    ASYNC_CONNECTIONS free waits for one."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=ASYNC_CONNECTIONS,
        timeout=ASYNC_TIMEOUT_S,
        socket_timeout=ASYNC_TIMEOUT_S,
        retry=AsyncRetry(ExponentialBackoff(cap=0.2, base=0.1), QUICK_RETRIES),
        decode_responses=True,
    )
    return AsyncRedis.from_pool(pool)
