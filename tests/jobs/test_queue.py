"""The queue holds ids, and can make a worker run only what the worker itself has named."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.connection import connect
from jobs.queue import PRIORITIES, RUN_EDIT, EditQueue, ForbiddenTaskError, MovingQueue, job_class, rq_queues
from tests.support import normal_queue


def test_only_the_id_crosses_the_queue(queue: EditQueue, raw_redis: Redis) -> None:
    queue.enqueue("edit_1")
    job = normal_queue(raw_redis).fetch_job("edit_1")
    assert job is not None
    assert (job.func_name, job.args, job.kwargs, job.timeout) == (RUN_EDIT, ["edit_1"], {}, -1)
    assert queue.length() == 1


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
