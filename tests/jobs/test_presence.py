"""Workers are seen while they say so."""

from __future__ import annotations

from redis import Redis

from jobs import presence
from jobs.presence import TTL_S, WorkerPresence


def test_a_worker_is_seen_until_it_withdraws(redis: Redis) -> None:
    worker = WorkerPresence(name="w1", state="ready", model="demo")
    presence.publish(redis, worker)
    assert presence.present(redis) == [worker]
    presence.withdraw(redis, "w1")
    assert presence.present(redis) == []
    assert presence.expected(redis), "another may be on its way"
    redis.delete(*redis.keys())
    assert not presence.expected(redis)


def test_a_worker_that_fell_silent_is_forgotten(redis: Redis) -> None:
    presence.publish(redis, WorkerPresence(name="w1", state="ready", model="demo"))
    presence.publish(redis, WorkerPresence(name="w2", state="starting", model="demo"))
    assert 0 < redis.ttl("foi:worker:w1") <= TTL_S
    redis.delete("foi:worker:w1")
    assert [worker.name for worker in presence.present(redis)] == ["w2"]
    assert redis.smembers("foi:workers") == {"w2"}
