"""The queue holds ids, and can make a worker run only what the worker itself has named."""

from __future__ import annotations

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.queue import RUN_EDIT, EditQueue, ForbiddenTaskError, job_class, rq_queue
from jobs.settings import Settings


def test_only_the_id_crosses_the_queue(queue: EditQueue, raw_redis: Redis) -> None:
    queue.enqueue("edit_1")
    job = rq_queue(raw_redis).fetch_job("edit_1")
    assert job is not None
    assert (job.func_name, job.args, job.kwargs, job.retries_left) == (RUN_EDIT, ["edit_1"], {}, 1)
    assert queue.length() == 1


def test_a_job_runs_the_function_that_the_worker_bound_to_the_name(queue: EditQueue, raw_redis: Redis) -> None:
    seen: list[str] = []
    queue.enqueue("edit_1")
    bound = job_class({RUN_EDIT: seen.append})
    bound.fetch("edit_1", connection=raw_redis, serializer=JSONSerializer).perform()
    assert seen == ["edit_1"]


@pytest.mark.parametrize("name", ["os.system", "worker.task.ProgressWriter", "builtins.exec", ""])
def test_foreign_dotted_names_are_refused(name: str, raw_redis: Redis) -> None:
    rq_queue(raw_redis).enqueue_call(name or "x", args=("true",), job_id="edit_1")
    bound = job_class({RUN_EDIT: print})
    job = bound.fetch("edit_1", connection=raw_redis, serializer=JSONSerializer)
    with pytest.raises(ForbiddenTaskError):
        job.perform()


def test_callbacks_and_webhooks_of_a_job_in_redis_are_not_looked_at(raw_redis: Redis) -> None:
    rq_queue(raw_redis).enqueue_call(RUN_EDIT, args=("edit_1",), job_id="edit_1")
    raw_redis.hset("rq:job:edit_1", mapping={"success_callback_name": "os.abort", "failure_callback_name": "os.abort"})
    job = job_class({}).fetch("edit_1", connection=raw_redis, serializer=JSONSerializer)
    assert (job.success_callback, job.failure_callback, job.stopped_callback) == (None, None, None)


def test_the_submitting_side_can_run_nothing(queue: EditQueue, raw_redis: Redis) -> None:
    queue.enqueue("edit_1")
    job = rq_queue(raw_redis).fetch_job("edit_1")
    assert isinstance(job, Job)
    with pytest.raises(ForbiddenTaskError):
        job.perform()


def test_one_attempt_means_no_retry(raw_redis: Redis, settings: Settings) -> None:
    EditQueue(raw_redis, settings.model_copy(update={"max_attempts": 1})).enqueue("edit_1")
    job = rq_queue(raw_redis).fetch_job("edit_1")
    assert job is not None
    assert not job.should_retry
