"""An edit may be deleted at any moment while a worker has it: its job ends without an error, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from jobs.blobs import BlobStore
from jobs.idempotency import IdempotencyKeys
from jobs.queue import EditQueue, MovingQueue
from jobs.repository import EditRepository
from jobs.settings import Settings
from service.submit import Intake
from tests.support import FakeEngine, wait_until
from worker import task
from worker.files import Files
from worker.rq_worker import EditWorker

MOMENTS: dict[str, tuple[Any, str]] = {
    "moved out of the queue": (MovingQueue, "_fetch_dequeued_job"),
    "taken": (EditWorker, "execute_job"),
    "leased": (EditWorker, "perform_job"),
    "prepared": (EditWorker, "_run"),
    "looked at": (EditRepository, "start"),
    "loading": (task._Given, "load"),
    "storing": (Files, "put"),
    "ending": (EditRepository, "commit"),
    "ended": (EditWorker, "handle_job_success"),
    "removing": (EditWorker, "_still_ours"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_edit_that_is_deleted_while_a_worker_has_it_ends_cleanly(
    moment: str,
    submit: Callable[..., str],
    work: Callable[..., EditWorker],
    repository: EditRepository,
    settings: Settings,
    blobs: BlobStore,
    queue: EditQueue,
    raw_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake(settings, repository, blobs, queue, IdempotencyKeys(repository))
    edit_id = submit(priority="low")
    owner, name = MOMENTS[moment]
    original, deleted = getattr(owner, name), []

    def hooked(*arguments: Any, **named: Any) -> Any:
        if not deleted:
            deleted.append(edit_id)
            record = repository.get(edit_id)
            assert record is not None
            intake.delete(record)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, classmethod(lambda _, *a, **n: hooked(*a, **n)) if "moved" in moment else hooked)
    work(FakeEngine())
    wait_until(lambda: deleted)
    other = submit(priority="low")
    wait_until(lambda: (record := repository.get(other)) is not None and record.terminal)
    assert repository.get(edit_id) is None
    assert repository.past_owner(edit_id) == ""
    wait_until(lambda: blobs.edit_ids() == [other])
    wait_until(lambda: not raw_redis.keys("rq:job:*") and not raw_redis.keys("rq:execution:*"))
    assert not raw_redis.exists("rq:wip:edits-low", "rq:failed:edits-low", "rq:queue:edits-low:intermediate")
    said = caplog.text + "".join(capfd.readouterr())
    assert "Traceback" not in said
    assert "[error" not in said
