"""What dead workers leave behind is found, handed on once, and given up in the end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution

from jobs.connection import connect
from jobs.records import EditRecord
from jobs.repository import EditRepository
from tests.support import normal_queue
from worker import reaper as reaper_module
from worker.reaper import LOCK_S, Reaper

Submit = Callable[..., str]
Look = Callable[[str], EditRecord]


@pytest.fixture
def rq(raw_redis: Redis) -> Queue:
    return normal_queue(raw_redis)


@pytest.fixture
def reaper(raw_redis: Redis, repository: EditRepository) -> Reaper:
    return Reaper(raw_redis, repository, 2)


def take_and_die(redis: Redis, repository: EditRepository, worker_name: str = "worker-1-0") -> str:
    """What is in Redis after a worker has taken the next edit, started it, and was killed."""
    queue = normal_queue(redis)
    _, job_id = Queue.lmove(redis, queue.key, None)
    job = queue.fetch_job(job_id.decode())
    assert job is not None
    with redis.pipeline() as pipeline:
        Execution.create(job, 100, pipeline, worker_name)
        job.prepare_for_execution(worker_name, pipeline)
        pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
        pipeline.execute()
    repository.start(job.id)
    return str(job.id)


def test_a_live_lease_is_left_alone(
    submit: Submit, rq: Queue, reaper: Reaper, raw_redis: Redis, repository: EditRepository
) -> None:
    submit()
    take_and_die(raw_redis, repository)
    reaper.tick()
    assert rq.count == 0


def test_the_edits_of_a_worker_known_to_be_dead_are_handed_back_at_once(
    submit: Submit, rq: Queue, reaper: Reaper, raw_redis: Redis, repository: EditRepository
) -> None:
    submit(), submit()
    waiting = submit()
    dead = take_and_die(raw_redis, repository, "worker-dead-0")
    take_and_die(raw_redis, repository, "worker-alive-0")
    reaper.reclaim("worker-dead")
    reaper.tick()
    assert rq.job_ids == [dead, waiting], "before those that have not had their turn"


def test_a_standstill_of_redis_is_nobodys_death(
    submit: Submit,
    rq: Queue,
    reaper: Reaper,
    raw_redis: Redis,
    repository: EditRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edit_id = submit()
    take_and_die(raw_redis, repository)
    raw_redis.zadd(rq.started_job_registry.key, {raw_redis.zrange(rq.started_job_registry.key, 0, 0)[0]: 1})
    monkeypatch.setattr(reaper_module, "STALL_S", -1)
    reaper.tick()
    assert rq.count == 0, "whoever holds the lease had no way to renew it"
    reaper.reclaim("worker-1")
    reaper.tick()
    assert rq.job_ids == [edit_id], "but this worker is known to be dead"


def test_a_lease_that_ended_by_itself_is_taken_once_redis_answers(
    submit: Submit, rq: Queue, reaper: Reaper, raw_redis: Redis, repository: EditRepository
) -> None:
    edit_id = submit()
    take_and_die(raw_redis, repository)
    raw_redis.zadd(rq.started_job_registry.key, {raw_redis.zrange(rq.started_job_registry.key, 0, 0)[0]: 1})
    reaper.tick()
    assert rq.job_ids == [edit_id]


def test_an_edit_whose_workers_die_again_and_again_is_given_up(
    submit: Submit, look: Look, rq: Queue, reaper: Reaper, raw_redis: Redis, repository: EditRepository
) -> None:
    edit_id = submit()
    for _ in range(2):
        assert not look(edit_id).terminal
        take_and_die(raw_redis, repository)
        reaper.reclaim("worker-1")
        reaper.tick()
    record = look(edit_id)
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error.type == "/problems/worker-lost"
    assert rq.count == 0


def test_many_reapers_at_once_hand_an_edit_back_once(
    submit: Submit, rq: Queue, raw_redis: Redis, repository: EditRepository, redis_url: str
) -> None:
    submit()
    take_and_die(raw_redis, repository)
    reapers = [Reaper(connect(redis_url), repository, 2) for _ in range(8)]
    reapers[0].reclaim("worker-1")
    line = Barrier(8)

    def tick(reaper: Reaper) -> None:
        line.wait()
        reaper.tick()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tick, reapers))
    assert rq.count == 1


def test_a_reaper_that_was_killed_blocks_the_others_for_seconds_only(
    submit: Submit, rq: Queue, reaper: Reaper, raw_redis: Redis, repository: EditRepository
) -> None:
    submit()
    take_and_die(raw_redis, repository)
    reaper.reclaim("worker-1")
    assert raw_redis.lock("foi:reaper", timeout=LOCK_S, blocking=False).acquire()
    reaper.tick()
    assert rq.count == 0
    assert 0 < raw_redis.pttl("foi:reaper") <= LOCK_S * 1000
    raw_redis.delete("foi:reaper")
    reaper.tick()
    assert rq.count == 1


def test_an_edit_popped_by_a_worker_that_died_at_once_comes_back(
    submit: Submit, rq: Queue, reaper: Reaper, raw_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_id = submit()
    Queue.lmove(raw_redis, rq.key, None)
    reaper.tick()
    assert rq.count == 0, "it may just be on its way"
    monkeypatch.setattr(reaper_module, "LEASE_S", -1)
    reaper.tick()
    reaper.tick()
    assert rq.job_ids == [edit_id]
    assert rq.intermediate_queue.get_job_ids() == []
