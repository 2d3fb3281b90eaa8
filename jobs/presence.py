"""Which workers are there: each says so every second, and is forgotten when it stops."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from redis import Redis

State = Literal["starting", "ready", "draining"]
TTL_S = 5
MISSED_AFTER_S = 60
"""How long after the last sign of any worker none is expected any more: one that starts again takes a while."""
_NAMES = "foi:workers"
_LAST_SIGN = "foi:workers:last-sign"


class WorkerPresence(BaseModel):
    """`places`: edits that it steps at once. `revision`: of the model, once it is known."""

    name: str
    state: State
    model: str
    places: int = 1
    revision: str | None = None


def publish(redis: Redis, presence: WorkerPresence) -> None:
    """Good for `TTL_S` seconds. Needs a client that decodes, as does `present`."""
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.set(_key(presence.name), presence.model_dump_json(), ex=TTL_S)
        pipeline.sadd(_NAMES, presence.name)
        pipeline.set(_LAST_SIGN, "1", ex=MISSED_AFTER_S)
        pipeline.execute()


def withdraw(redis: Redis, name: str) -> None:
    """Gone at once, instead of after `TTL_S`."""
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.delete(_key(name))
        pipeline.srem(_NAMES, name)
        pipeline.execute()


def present(redis: Redis) -> list[WorkerPresence]:
    """All workers that were heard of in the last `TTL_S` seconds."""
    names: list[str] = sorted(map(str, redis.smembers(_NAMES)))
    if not names:
        return []
    found: list[str | None] = redis.mget([_key(name) for name in names])  # type: ignore[assignment]
    gone = [name for name, value in zip(names, found, strict=True) if value is None]
    if gone:
        redis.srem(_NAMES, *gone)
    return [WorkerPresence.model_validate_json(value) for value in found if value is not None]


def expected(redis: Redis) -> bool:
    """Whether a worker is there, or was a moment ago."""
    return bool(redis.exists(_LAST_SIGN))


def _key(name: str) -> str:
    return f"foi:worker:{name}"
