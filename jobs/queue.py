"""The queue of edits: RQ, with only ids in it and only functions that the worker itself names.

One queue, so RQ takes jobs by BLMOVE into an intermediate list and a worker killed right after it loses nothing.
Whoever can write to Redis can still make our worker run our own task: keep Redis private.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from redis import Redis
from rq import Queue
from rq.job import Job, Retry
from rq.serializers import JSONSerializer

from jobs.settings import Settings

RUN_EDIT = "worker.task.run_edit"
QUEUE_NAME = "edits"
FAILURE_TTL_S = 3600


class ForbiddenTaskError(Exception):
    """A job in Redis names a function that is not one of ours."""


class AllowedJob(Job):  # type: ignore[misc]  # rq is untyped
    """RQ's job without the parts that import whatever dotted name its data holds, callbacks and webhooks included."""

    tasks: ClassVar[Mapping[str, Callable[..., object]]] = {}
    success_callback = None
    failure_callback = None
    stopped_callback = None

    @property
    def func(self) -> Callable[..., object]:
        if self.instance is not None or self.func_name not in self.tasks:
            raise ForbiddenTaskError(f"{self.func_name!r} is not a task of this worker; it has {sorted(self.tasks)}")
        return self.tasks[self.func_name]

    def send_webhooks(self, *_args: object, **_kwargs: object) -> None:
        """RQ's own webhooks would post to any address that the job names."""


def job_class(tasks: Mapping[str, Callable[..., object]]) -> type[AllowedJob]:
    """A job class that can run exactly `tasks`, by their names."""
    return type("BoundJob", (AllowedJob,), {"tasks": dict(tasks)})


def rq_queue(redis: Redis, jobs: type[AllowedJob] = AllowedJob) -> Queue:
    """The one queue. `redis` must not decode: RQ wants bytes."""
    return Queue(QUEUE_NAME, connection=redis, job_class=jobs, serializer=JSONSerializer)


class EditQueue:
    """The submitting side: enqueues by name and runs nothing."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._queue = rq_queue(redis)
        self._timeout_s = settings.edit_timeout_s
        retries = settings.max_attempts - 1
        # At the front: an edit whose worker died has waited for its turn already.
        self._retry = Retry(max=retries, enqueue_at_front=True) if retries else None

    def enqueue(self, edit_id: str) -> None:
        """The job's id is the edit's. Nothing is kept of it once the edit is done: the record has the result."""
        self._queue.enqueue_call(
            RUN_EDIT,
            args=(edit_id,),
            job_id=edit_id,
            description=edit_id,
            timeout=self._timeout_s,
            result_ttl=0,
            failure_ttl=FAILURE_TTL_S,
            retry=self._retry,
        )

    def length(self) -> int:
        """How many edits wait (those that run are not counted)."""
        return int(self._queue.count)
