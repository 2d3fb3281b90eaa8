"""The queue of edits: RQ, with only ids in it and only functions that the worker itself names.

One RQ queue per priority. RQ would pop from several queues by BLPOP, and a worker killed right after it loses the job;
`MovingQueue` moves it (LMOVE) into RQ's intermediate list instead, from which the reaper brings it back. Whoever can
write to Redis can still make our worker run our own task: keep Redis private.

What of RQ's layout in Redis our own scripts rely on stands here: WITHDRAW names two of its keys. Everything else RQ
writes itself: `EditQueue.entry` records the commands with which it would enqueue a job, and a script runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, get_args

from redis import Redis
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, Retry
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.utils import as_text

from jobs.records import Priority

RUN_EDIT = "worker.task.run_edit"
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
FAILURE_TTL_S = 3600
RETRIES = 1000
"""RQ hands an edit back as often as its workers die; the edit's own record says when that is too often."""

_DOORBELL = "foi:doorbell"
_MAX_RINGS = 64

Command = tuple[Any, ...]
"""A command of Redis and its arguments."""

WITHDRAW = f"""
local function withdraw(id, priority)
  if redis.call('LREM', '{Queue.redis_queue_namespace_prefix}edits-' .. priority, 1, id) > 0 then
    redis.call('DEL', '{Job.redis_job_namespace_prefix}' .. id)
  end
end
"""
"""Lua: takes an edit that waits out of its queue. A job that a worker has taken stays: RQ cannot end one that is gone,
and removes it when the worker finds nothing to do."""

# Redis's clock: workers and reapers run on hosts whose own clocks may differ by more than a lease.
_LEASE = """
local ends = redis.call('TIME')[1] + ARGV[1]
if ARGV[3] == '1' then return redis.call('ZADD', KEYS[1], 'XX', ends, ARGV[2]) end
return redis.call('ZADD', KEYS[1], ends, ARGV[2])
"""


class ForbiddenTaskError(Exception):
    """A job in Redis names a function that is not one of ours."""


class _ExecutionIds(ExecutionRegistry):  # type: ignore[misc]  # rq is untyped
    """RQ's list of a job's executions, by their ids alone. RQ's own reads each, and cannot end or delete a job one of
    whose leases ended meanwhile: that execution's record is gone, or only half there."""

    def get_executions(self, start: int = 0, end: int = -1) -> list[Execution]:
        return [Execution(one, self.job_id, self.connection) for one in self.get_execution_ids(start, end)]

    def cleanup(self, *_args: object, **_kwargs: object) -> None:
        """RQ would compare the clocks of two hosts. The whole list expires by Redis's own clock."""


class LeaseRegistry(StartedJobRegistry):  # type: ignore[misc]  # rq is untyped
    """RQ's sorted set of the leases of running jobs, by their ends. RQ writes and compares these by the clock of each
    host; here Redis's clock alone counts."""

    def add_execution(self, execution: Execution, pipeline: Redis, ttl: int = 0, xx: bool = False) -> Any:
        """A lease for `ttl` seconds from when Redis runs the command. `xx`: only where there still is one."""
        return pipeline.eval(_LEASE, 1, self.key, ttl, execution.composite_key, int(xx))

    def cleanup(self, timestamp: float | None = None, exception_handlers: list[Any] | None = None) -> None:
        """Ends the leases that ended before `timestamp`, in seconds of Redis's clock (None: now)."""
        moment = self.connection.time()[0] if timestamp is None else timestamp
        super().cleanup(moment, exception_handlers)


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

    @property
    def execution_registry(self) -> ExecutionRegistry:
        return _ExecutionIds(self.id, connection=self.connection)

    @property
    def started_job_registry(self) -> LeaseRegistry:
        return LeaseRegistry(self.origin, self.connection, type(self), serializer=self.serializer)

    def send_webhooks(self, *_args: object, **_kwargs: object) -> None:
        """RQ's own webhooks would post to any address that the job names."""


def job_class(tasks: Mapping[str, Callable[..., object]]) -> type[AllowedJob]:
    """A job class that can run exactly `tasks`, by their names."""
    return type("BoundJob", (AllowedJob,), {"tasks": dict(tasks)})


class MovingQueue(Queue):  # type: ignore[misc]  # rq is untyped
    """RQ's queue whose jobs are moved, never popped, and whose leases end by Redis's clock."""

    @property
    def started_job_registry(self) -> LeaseRegistry:
        return LeaseRegistry(queue=self, job_class=self.job_class, serializer=self.serializer)

    @classmethod
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, connection: Redis, **classes: Any
    ) -> tuple[Job, Queue] | None:
        """The first job of the first queue that has one. Waits for the doorbell up to `timeout` seconds; None at once
        or after it."""
        for queue in queues:
            while (moved := connection.lmove(queue.key, queue.intermediate_queue_key)) is not None:
                job_id = as_text(moved)
                found: tuple[Job, Queue] | None = cls._fetch_dequeued_job(connection, queue.key, job_id, **classes)
                if found is not None:
                    return found
                connection.lrem(queue.intermediate_queue_key, 1, job_id)  # its data has expired
        if timeout is not None and connection.blpop([_DOORBELL], timeout) is not None:
            return cls.dequeue_any(queues, None, connection, **classes)
        return None


def rq_queues(redis: Redis, jobs: type[AllowedJob] = AllowedJob) -> list[MovingQueue]:
    """One for each priority, the most urgent first. `redis` must not decode: RQ wants bytes."""
    return [
        MovingQueue(
            f"edits-{priority}",
            connection=redis,
            job_class=jobs,
            serializer=JSONSerializer,
            death_penalty_class=TimerDeathPenalty,
        )
        for priority in PRIORITIES
    ]


class EditQueue:
    """The submitting side: enqueues by name and runs nothing."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._queues = dict(zip(PRIORITIES, rq_queues(redis), strict=True))
        # At the front: an edit whose worker died has waited for its turn already.
        self._retry = Retry(max=RETRIES, enqueue_at_front=True)
        self._withdraw = redis.register_script(WITHDRAW + "withdraw(ARGV[1], ARGV[2])")

    def entry(self, edit_id: str, priority: Priority = "normal") -> list[Command]:
        """The commands that enqueue the edit, for whoever must run them together with others (`EditRepository.create`).
        The job's id is the edit's. Nothing is kept of it once the edit is done: the record has the result."""
        pipeline = self._redis.pipeline()
        self._queues[priority].enqueue_call(
            RUN_EDIT,
            args=(edit_id,),
            job_id=edit_id,
            description=edit_id,
            timeout=-1,  # the engine keeps the edit's time; RQ could not break a thread's wait
            result_ttl=0,
            failure_ttl=FAILURE_TTL_S,
            retry=self._retry,
            pipeline=pipeline,
        )
        # An idle worker looks at once; without a ring it would within a second.
        pipeline.lpush(_DOORBELL, "1")
        pipeline.ltrim(_DOORBELL, 0, _MAX_RINGS - 1)
        return [command for command, _ in pipeline.command_stack]

    def enqueue(self, edit_id: str, priority: Priority = "normal") -> None:
        """Only the queue's part, for an edit that has its record."""
        with self._redis.pipeline() as pipeline:
            for command in self.entry(edit_id, priority):
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            pipeline.execute()

    def remove(self, edit_id: str, priority: Priority) -> None:
        """Takes an edit that waits out of the queue, whatever its record says."""
        self._withdraw(args=[edit_id, priority])

    def position(self, edit_id: str, priority: Priority) -> int | None:
        """1: the next one; None: it does not wait."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for one in PRIORITIES[: PRIORITIES.index(priority)]:
                pipeline.llen(self._queues[one].key)
            pipeline.lpos(self._queues[priority].key, edit_id)
            *before, place = pipeline.execute()
        return None if place is None else sum(before) + place + 1

    def running(self) -> int:
        """How many edits workers have taken."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for queue in self._queues.values():
                pipeline.zcard(queue.started_job_registry.key)
            return sum(pipeline.execute())

    def length(self) -> int:
        """How many edits wait (those that run are not counted)."""
        return sum(int(queue.count) for queue in self._queues.values())
