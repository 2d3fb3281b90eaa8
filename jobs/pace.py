"""How long an edit that waits or runs will probably take: from the last ones, and from how many run at once."""

from __future__ import annotations

import math
from typing import Any

from redis import Redis

from jobs import clock, presence
from jobs.queue import EditQueue
from jobs.records import EditRecord

_LAST = "foi:pace"
_KEPT = 32
# The list is cut first: a Redis that is full would refuse the other order, and with it the end of an edit.
_REMEMBER = "redis.call('LTRIM', KEYS[1], 0, ARGV[2]); redis.call('LPUSH', KEYS[1], ARGV[1])"


def remember(redis: Redis, run_ms: int) -> None:
    """An edit has run for so long."""
    redis.eval(_REMEMBER, 1, _LAST, run_ms, _KEPT - 2)


def estimate(redis: Redis, queue: EditQueue, record: EditRecord) -> tuple[int | None, int | None]:
    """The edit's place in the queue (1: the next; None: it does not wait), and the seconds until its end. None where
    nothing is known: no edit was done yet, or nobody is there to do it."""
    if record.terminal:
        return None, None
    position = queue.position(record.submission.id, record.submission.priority) if record.status == "queued" else None
    if record.submission.input.method == "masks":  # one step: what edits take says nothing of it
        return position, None
    last: Any = redis.lrange(_LAST, 0, -1)
    places = sum(worker.places for worker in presence.present(redis) if worker.state == "ready")
    if not last or not places:
        return position, None
    run_s = sum(map(float, last)) / len(last) / 1000
    if position is not None:
        return position, math.ceil(run_s * (1 + (position - 1 + queue.running()) // places))
    return None, math.ceil(max(0.0, run_s - _seconds_run(redis, record)))


def _seconds_run(redis: Redis, record: EditRecord) -> float:
    return (clock.now(redis) - record.started_at).total_seconds() if record.started_at else 0.0
