"""RQ's worker made fit for a thread of a process that holds a warm model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import WorkerStatus

from jobs.connection import RedisError
from jobs.logs import get_logger
from jobs.queue import job_class, rq_queue

LEASE_S = 6
"""A job whose lease was not renewed for so long is taken from its worker (RQ's own: the job's timeout and 60 s)."""
RENEW_S = 2
POLL_S = 1
"""How soon an idle worker notices that it should stop."""

log = get_logger(__name__)


class EditWorker(SimpleWorker):  # type: ignore[misc]  # rq is untyped
    """Runs jobs in the calling thread. `work()` returns after `stop()`, when the running job is done."""

    death_penalty_class = TimerDeathPenalty
    dequeue_timeout = POLL_S
    should_run_maintenance_tasks = (
        False  # the reaper does it, under a lock that does not outlive its holder for minutes
    )

    def __init__(
        self,
        name: str,
        connection: Redis,
        tasks: Mapping[str, Callable[..., object]],
        on_failure: Callable[..., None],
    ) -> None:
        """`name` must never come twice: RQ refuses the name of a worker that was killed. One connection per worker."""
        jobs = job_class(tasks)
        super().__init__(
            [rq_queue(connection, jobs)],
            name=name,
            connection=connection,
            job_class=jobs,
            serializer=JSONSerializer,
            exception_handlers=[on_failure],
        )

    def stop(self) -> None:
        """May be called from any thread."""
        self._stop_requested = True

    def execute_job(self, job: Job, queue: Queue) -> None:
        execution = self.prepare_execution(job)
        with self._renewed_lease(job, execution):
            self.perform_job(job, queue, execution)
        self.set_state(WorkerStatus.IDLE)

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:  # noqa: ARG002
        """In slices, because nothing interrupts a thread that blocks on Redis."""
        while not self._stop_requested:
            found = super().dequeue_job_and_maintain_ttl(POLL_S, max_idle_time=POLL_S)
            if found is not None:
                return found
        raise StopRequested

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002
        return LEASE_S

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        if self._still_ours(job, execution):
            super().handle_job_success(job, queue, started_job_registry, execution)

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
                try:
                    self.maintain_heartbeats(job, execution)
                except RedisError as error:
                    log.warning("lease not renewed", edit_id=job.id, reason=str(error))

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
