"""RQ's worker made fit for a thread of a process that holds a warm model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job, Retry
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import WorkerStatus

from foi_core.errors import EngineDied
from jobs.connection import RedisError
from jobs.logs import get_logger
from jobs.queue import RETRIES, RUN_EDIT, MovingQueue, job_class, rq_queues
from worker.room import HandedBack, Place, Room

LEASE_S = 6
"""A job whose lease was not renewed for so long is taken from its worker (RQ's own: the job's timeout and 60 s)."""
RENEW_S = 2
POLL_S = 1
"""How soon an idle worker notices that it should stop."""

Task = Callable[[str, Place], None]
log = get_logger(__name__)


class EditWorker(SimpleWorker):  # type: ignore[misc]  # rq is untyped
    """Runs jobs in the calling thread. `work()` returns after `stop()`, when the running job is done."""

    queue_class = MovingQueue
    death_penalty_class = TimerDeathPenalty
    dequeue_timeout = POLL_S
    should_run_maintenance_tasks = (
        False  # the reaper does it, under a lock that does not outlive its holder for minutes
    )

    def __init__(
        self, name: str, connection: Redis, task: Task, room: Room, is_alive: Callable[[], bool] = lambda: True
    ) -> None:
        """`name` must never come twice: RQ refuses the name of a worker that was killed. One connection per worker.
        Leases are renewed only while `is_alive()`: a process that hangs must lose its edits."""
        jobs = job_class({RUN_EDIT: self._run})
        super().__init__(
            rq_queues(connection, jobs),
            name=name,
            connection=connection,
            queue_class=MovingQueue,
            job_class=jobs,
            serializer=JSONSerializer,
        )
        self._task, self._room, self._is_alive = task, room, is_alive
        self._place: Place | None = None

    def stop(self) -> None:
        """May be called from any thread."""
        self._stop_requested = True

    def _run(self, edit_id: str) -> Retry | None:
        """The job. What RQ gets back tells it to put the job at the front of its queue again, or to forget it."""
        assert self._place is not None
        try:
            self._task(edit_id, self._place)
        except (HandedBack, EngineDied):
            return Retry(max=RETRIES, enqueue_at_front=True)
        return None

    def execute_job(self, job: Job, queue: Queue) -> None:
        assert self._place is not None
        try:
            execution = self.prepare_execution(job)
            with self._renewed_lease(job, execution):
                self.perform_job(job, queue, execution)
            self.set_state(WorkerStatus.IDLE)
        finally:
            self._place.leave()

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:  # noqa: ARG002
        """RQ moves jobs, and takes them out here, only where there is one queue."""
        super().prepare_job_execution(job, remove_from_intermediate_queue=True)

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:  # noqa: ARG002
        """In slices, because nothing interrupts a thread that blocks on Redis; when there is room, and one thread at a
        time."""
        while not self._stop_requested:
            if not self._room.turn.acquire(timeout=POLL_S):
                continue
            try:
                found = self._dequeue()
            finally:
                self._room.turn.release()
            if found is not None:
                return found
        raise StopRequested

    def _dequeue(self) -> Any:
        place = self._room.enter(POLL_S)
        if place is None or self._stop_requested:
            return None
        found = None
        try:
            found = super().dequeue_job_and_maintain_ttl(POLL_S, max_idle_time=POLL_S)
        finally:
            if found is None:
                place.leave()
        self._place = place
        return found

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002
        return LEASE_S

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        if self._still_ours(job, execution):
            super().handle_job_success(job, queue, started_job_registry, execution)

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Retry, started_job_registry: Any, execution: Execution
    ) -> None:
        if self._still_ours(job, execution):
            super().handle_job_retry(job, queue, retry, started_job_registry, execution)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        if execution is None or self._still_ours(job, execution):
            super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)

    def _still_ours(self, job: Job, execution: Execution) -> bool:
        """Renews the lease once more and looks whether there still is one.

        A worker that was stopped past its lease and goes on would delete the job that another one has by now.
        """
        self.maintain_heartbeats(job, execution)
        held = self.connection.zscore(job.started_job_registry.key, execution.composite_key) is not None
        if not held:
            log.warning("lease lost: the job belongs to another worker", edit_id=job.id)
            self.executions.pop(execution.id, None)
        return held

    @contextmanager
    def _renewed_lease(self, job: Job, execution: Execution) -> Iterator[None]:
        done = Event()

        def renew() -> None:
            while not done.wait(RENEW_S):
                if not self._is_alive():
                    continue
                try:
                    self.maintain_heartbeats(job, execution)
                except RedisError as error:
                    log.warning("lease not renewed", edit_id=job.id, reason=str(error))
                except Exception:
                    log.exception("lease not renewed: an unexpected error", edit_id=job.id)

        thread = Thread(target=renew, name=f"lease-{job.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _install_signal_handlers(self) -> None:
        """Signals belong to the main thread of the process."""

    def subscribe(self) -> None:
        """No commands by pubsub: whoever can write to Redis could end workers, and each would need a further thread."""
