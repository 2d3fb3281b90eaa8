"""Gives the edits of dead workers to living ones."""

from __future__ import annotations

import time

from redis import Redis
from redis.exceptions import LockNotOwnedError
from rq.executions import Execution
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.worker_registration import clean_worker_registry

from jobs.logs import get_logger
from jobs.queue import MovingQueue, rq_queues
from jobs.repository import EditRepository
from worker.rq_worker import LEASE_S, RENEW_S
from worker.task import worker_lost

LOCK_S = 5
"""A reaper that is killed in the middle delays the next one by this much. RQ's own lock: by 15 minutes."""
STALL_S = 3
"""A reaper that could not look for longer was held up, and so, perhaps, was everyone."""
MERCY_S = 2 * RENEW_S
RECLAIMED = 0
"""When the lease of a worker that is known to be dead ended: before any other."""

log = get_logger(__name__)


class FailureHandler:
    """RQ's exception handler, for attempts whose worker has died."""

    def __init__(self, repository: EditRepository, max_deaths: int) -> None:
        self._repository, self._max_deaths = repository, max_deaths

    def __call__(self, job: Job, _kind: type[BaseException], error: BaseException, _traceback: object) -> None:
        log.warning("attempt lost: its worker died", edit_id=job.id, reason=str(error))
        self._repository.release(job.id, None, blameless=False)
        record = self._repository.get(job.id)
        if record is not None and record.deaths >= self._max_deaths:
            job.retries_left = 0
            outcome = worker_lost(record.deaths).ended_at(self._repository.now())
            self._repository.commit(job.id, None, outcome)


class Reaper:
    """Every worker process and the supervisor have one; a lock in Redis lets one of them act at a time."""

    def __init__(self, connection: Redis, repository: EditRepository, max_deaths: int) -> None:
        self._connection = connection
        self._queues = rq_queues(connection)
        self._handler = FailureHandler(repository, max_deaths)
        self._popped_since: dict[str, float] = {}
        self._answered_at = time.monotonic()
        self._trusts_leases_at = 0.0

    def tick(self) -> None:
        """Call every second. Raises RedisError."""
        stuck = self._stuck()
        lock = self._connection.lock("foi:reaper", timeout=LOCK_S, blocking=False)
        acquired = lock.acquire()
        trusted = self._trusts_leases()
        if not acquired:
            return
        try:
            for queue in self._queues:
                queue.started_job_registry.cleanup(None if trusted else RECLAIMED, [self._handler])
                FailedJobRegistry(queue=queue).cleanup()
                clean_worker_registry(queue)
            for queue, job_id in stuck if trusted else ():
                self._requeue(queue, job_id)
        finally:
            try:
                lock.release()
            except LockNotOwnedError:
                log.warning("the reaper took longer than its lock")

    def _trusts_leases(self) -> bool:
        """Now that Redis has taken a write. Not for a while after it, or this machine, stood still, or it was full:
        live workers could not renew theirs either."""
        answered_before, self._answered_at = self._answered_at, time.monotonic()
        if self._answered_at - answered_before > STALL_S:
            self._trusts_leases_at = self._answered_at + MERCY_S
        return self._answered_at >= self._trusts_leases_at

    def reclaim(self, worker_name: str) -> None:
        """Ends the leases of a worker that is known to be dead, so that the next tick gives its jobs back."""
        for registry in (queue.started_job_registry for queue in self._queues):
            for job_id, execution_id in registry.get_job_and_execution_ids(cleanup=False):
                try:
                    execution = Execution.fetch(execution_id, job_id, self._connection)
                except (ValueError, KeyError):
                    continue  # its lease has ended by itself, and left nothing or a part
                if execution.worker_name.startswith(worker_name):
                    self._connection.zadd(registry.key, {execution.composite_key: RECLAIMED}, xx=True)

    def _stuck(self) -> list[tuple[MovingQueue, str]]:
        """Jobs that were popped a lease ago and never started: their worker died between the two."""
        popped = [(queue, job_id) for queue in self._queues for job_id in self._popped(queue)]
        now = time.monotonic()
        self._popped_since = {job_id: self._popped_since.get(job_id, now) for _, job_id in popped}
        return [(queue, job_id) for queue, job_id in popped if now - self._popped_since[job_id] > LEASE_S]

    def _popped(self, queue: MovingQueue) -> list[str]:
        taken = queue.intermediate_queue.get_job_ids()
        leases = queue.started_job_registry.get_job_and_execution_ids(cleanup=False) if taken else ()
        started = {job_id for job_id, _ in leases}
        return [job_id for job_id in taken if job_id not in started]

    def _requeue(self, queue: MovingQueue, job_id: str) -> None:
        log.warning("edit requeued: its worker died before it started", edit_id=job_id)
        with self._connection.pipeline(transaction=True) as pipeline:
            pipeline.lrem(queue.intermediate_queue_key, 1, job_id)
            queue.push_job_id(job_id, pipeline=pipeline, at_front=True)
            pipeline.execute()
        del self._popped_since[job_id]
