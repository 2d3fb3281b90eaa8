"""The queue holds ids, and can make a worker run only what the worker itself has named."""

from __future__ import annotations

import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from rq.executions import Execution
from rq.job import Job, Retry
from rq.serializers import JSONSerializer

from jobs.connection import connect
from jobs.queue import (
    FAILURE_TTL_S,
    PRIORITIES,
    RETRIES,
    RUN_EDIT,
    EditQueue,
    ForbiddenTaskError,
    MovingQueue,
    job_class,
    rq_queues,
)
from jobs.records import Priority
from jobs.repository import EditRepository
from tests.support import normal_queue, submission


def test_only_the_id_crosses_the_queue(queue: EditQueue, raw_redis: Redis) -> None:
    queue.enqueue("edit_1")
    job = normal_queue(raw_redis).fetch_job("edit_1")
    assert job is not None
    assert (job.func_name, job.args, job.kwargs, job.timeout) == (RUN_EDIT, ["edit_1"], {}, -1)
    assert queue.length() == 1


@pytest.mark.parametrize("priority", PRIORITIES)
def test_the_queue_entry_that_comes_with_an_edits_record_is_the_one_that_rq_itself_makes(
    priority: Priority, queue: EditQueue, repository: EditRepository, raw_redis: Redis
) -> None:
    new = submission(priority=priority)
    repository.create(new, entry=queue.entry(new.id, priority))
    ours = everything_of_rq(raw_redis)
    raw_redis.flushall()
    rq_queues(raw_redis)[PRIORITIES.index(priority)].enqueue_call(
        RUN_EDIT,
        args=(new.id,),
        job_id=new.id,
        description=new.id,
        timeout=-1,
        result_ttl=0,
        failure_ttl=FAILURE_TTL_S,
        retry=Retry(max=RETRIES, enqueue_at_front=True),
    )
    assert ours == everything_of_rq(raw_redis)
    assert len(ours) == 3, "the job, its queue, and the list of queues"


def everything_of_rq(redis: Redis) -> dict[bytes, object]:
    """What RQ's keys hold, but for the times in it and the queues that other tests have named."""
    found: dict[bytes, object] = {}
    for key in redis.keys("rq:*"):
        kind = redis.type(key)
        if kind == b"hash":
            fields = redis.hgetall(key)
            for name in (b"created_at", b"enqueued_at"):
                assert fields.pop(name)
            found[key] = {**fields, b"data": zlib.decompress(fields[b"data"])}
        else:
            found[key] = redis.lrange(key, 0, -1) if kind == b"list" else redis.smembers(key)
    return found


def test_an_edit_that_a_worker_has_taken_stays_for_rq_to_end(queue: EditQueue, raw_redis: Redis) -> None:
    queue.enqueue("edit_1")
    taken(raw_redis)
    queue.remove("edit_1", "normal")
    assert raw_redis.exists("rq:job:edit_1")


def test_a_lease_ends_by_the_clock_of_redis(
    queue: EditQueue, raw_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("edit_1")
    job = job_class({}).fetch("edit_1", connection=raw_redis, serializer=JSONSerializer)
    monkeypatch.setattr("rq.executions.current_timestamp", lambda: 0)
    monkeypatch.setattr("rq.registry.current_timestamp", lambda: 0)
    with raw_redis.pipeline() as pipeline:
        Execution.create(job, 6, pipeline, "worker")
        pipeline.execute()
    ((_, ends),) = raw_redis.zrange(job.started_job_registry.key, 0, -1, withscores=True)
    assert 0 <= raw_redis.time()[0] + 6 - ends <= 1


def test_a_job_runs_the_function_that_the_worker_bound_to_the_name(queue: EditQueue, raw_redis: Redis) -> None:
    seen: list[str] = []
    queue.enqueue("edit_1")
    bound = job_class({RUN_EDIT: seen.append})
    bound.fetch("edit_1", connection=raw_redis, serializer=JSONSerializer).perform()
    assert seen == ["edit_1"]


@pytest.mark.parametrize("name", ["os.system", "worker.task.ProgressWriter", "builtins.exec", ""])
def test_foreign_dotted_names_are_refused(name: str, raw_redis: Redis) -> None:
    normal_queue(raw_redis).enqueue_call(name or "x", args=("true",), job_id="edit_1")
    bound = job_class({RUN_EDIT: print})
    job = bound.fetch("edit_1", connection=raw_redis, serializer=JSONSerializer)
    with pytest.raises(ForbiddenTaskError):
        job.perform()


def test_callbacks_and_webhooks_of_a_job_in_redis_are_not_looked_at(raw_redis: Redis) -> None:
    normal_queue(raw_redis).enqueue_call(RUN_EDIT, args=("edit_1",), job_id="edit_1")
    raw_redis.hset("rq:job:edit_1", mapping={"success_callback_name": "os.abort", "failure_callback_name": "os.abort"})
    job = job_class({}).fetch("edit_1", connection=raw_redis, serializer=JSONSerializer)
    assert (job.success_callback, job.failure_callback, job.stopped_callback) == (None, None, None)


def test_the_submitting_side_can_run_nothing(queue: EditQueue, raw_redis: Redis) -> None:
    queue.enqueue("edit_1")
    job = normal_queue(raw_redis).fetch_job("edit_1")
    assert isinstance(job, Job)
    with pytest.raises(ForbiddenTaskError):
        job.perform()


def taken(redis: Redis) -> str | None:
    found = MovingQueue.dequeue_any(rq_queues(redis), None, redis, serializer=JSONSerializer)
    return found[0].id if found else None


def test_urgent_edits_are_taken_first_and_in_their_order(queue: EditQueue, raw_redis: Redis) -> None:
    for name, priority in (("a", "low"), ("b", "normal"), ("c", "high"), ("d", "normal"), ("e", "high")):
        queue.enqueue(f"edit_{name}", priority)
    assert queue.length() == 5
    assert [taken(raw_redis) for _ in range(6)] == ["edit_c", "edit_e", "edit_b", "edit_d", "edit_a", None]


def test_what_was_taken_is_kept_until_it_runs(queue: EditQueue, raw_redis: Redis) -> None:
    queue.enqueue("edit_1", "low")
    taken(raw_redis)
    assert rq_queues(raw_redis)[PRIORITIES.index("low")].intermediate_queue.get_job_ids() == ["edit_1"]


def test_an_idle_worker_hears_of_a_new_edit_at_once(queue: EditQueue, redis_url: str) -> None:
    redis = connect(redis_url)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(MovingQueue.dequeue_any, rq_queues(redis), 20, redis, serializer=JSONSerializer)
        time.sleep(0.1)
        begun = time.monotonic()
        queue.enqueue("edit_1")
        found = waiting.result(20)
    redis.close()
    assert found is not None
    assert found[0].id == "edit_1"
    assert time.monotonic() - begun < 5


def test_an_edit_taken_out_of_the_queue_leaves_nothing(queue: EditQueue, raw_redis: Redis) -> None:
    queue.enqueue("edit_1", "high")
    queue.remove("edit_1", "high")
    assert taken(raw_redis) is None
    assert not raw_redis.keys("rq:job:*")
