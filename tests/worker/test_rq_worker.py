"""RQ in a thread: leases are kept, stops are clean, and a worker that was given up for dead does no harm."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from redis import Redis
from rq.exceptions import NoSuchJobError

from jobs.blobs import BlobStore
from jobs.records import EditRecord, StoredFile
from jobs.repository import EditRepository
from jobs.settings import Settings
from tests.support import FakeEngine, normal_queue, wait_until
from worker import rq_worker
from worker.reaper import Reaper
from worker.rq_worker import EditWorker

Submit = Callable[..., str]
Look = Callable[[str], EditRecord]
Work = Callable[..., EditWorker]


def ended(look: Look, edit_id: str) -> EditRecord:
    wait_until(lambda: look(edit_id).terminal)
    return look(edit_id)


def test_a_queued_edit_is_run_and_leaves_nothing_in_the_queue(
    submit: Submit, look: Look, work: Work, raw_redis: Redis
) -> None:
    edit_id = submit()
    work(FakeEngine())
    assert ended(look, edit_id).status == "succeeded"
    wait_until(lambda: not raw_redis.keys(f"rq:*{edit_id}*"))
    queue = normal_queue(raw_redis)
    assert (queue.count, queue.started_job_registry.get_job_count(cleanup=False)) == (0, 0)


def test_stopping_lets_the_running_edit_finish_and_takes_no_further(submit: Submit, look: Look, work: Work) -> None:
    begun, go_on = Event(), Event()

    def during() -> None:
        begun.set()
        assert go_on.wait(20)

    first, second = submit(), submit()
    worker = work(FakeEngine(during))
    assert begun.wait(20)
    worker.stop()
    go_on.set()
    assert ended(look, first).status == "succeeded"
    assert look(second).status == "queued"


def test_a_slow_store_holds_only_its_own_edit(submit: Submit, look: Look, work: Work, settings: Settings) -> None:
    slow, go_on = submit(), Event()

    class SlowStore(BlobStore):
        def put_output(self, edit_id: str, *rest: Any) -> StoredFile:
            assert edit_id != slow or go_on.wait(20)
            return super().put_output(edit_id, *rest)

    work(FakeEngine(), SlowStore(settings.data_dir / "blobs"), threads=2)
    others = [submit() for _ in range(3)]
    for edit_id in others:
        assert ended(look, edit_id).status == "succeeded"
    assert look(slow).status == "running"
    go_on.set()
    assert ended(look, slow).status == "succeeded"


def test_a_foreign_task_does_not_end_the_worker(submit: Submit, look: Look, work: Work, raw_redis: Redis) -> None:
    normal_queue(raw_redis).enqueue_call("os.abort", job_id="edit_evil", failure_ttl=60)
    edit_id = submit()
    work(FakeEngine())
    assert ended(look, edit_id).status == "succeeded"


def test_the_lease_is_renewed_while_an_edit_runs(
    submit: Submit,
    look: Look,
    work: Work,
    raw_redis: Redis,
    repository: EditRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rq_worker, "LEASE_S", 1)
    monkeypatch.setattr(rq_worker, "RENEW_S", 0.2)
    go_on = Event()
    edit_id = submit()
    work(FakeEngine(lambda: go_on.wait(20)))
    wait_until(lambda: look(edit_id).status == "running")
    registry = normal_queue(raw_redis).started_job_registry
    first = raw_redis.zrange(registry.key, 0, -1, withscores=True)
    wait_until(lambda: raw_redis.zrange(registry.key, 0, -1, withscores=True)[0][1] > first[0][1] + 1)
    Reaper(raw_redis, repository, 2).tick()
    go_on.set()
    assert ended(look, edit_id).attempt == 1


def test_an_edit_ends_and_leaves_nothing_even_where_the_record_of_its_lease_is_half_gone(
    submit: Submit, look: Look, work: Work, raw_redis: Redis
) -> None:
    go_on = Event()
    edit_id = submit()
    work(FakeEngine(lambda: go_on.wait(20)))
    wait_until(lambda: look(edit_id).status == "running")
    raw_redis.hdel(raw_redis.keys("rq:execution:*")[0], "created_at")
    go_on.set()
    assert ended(look, edit_id).status == "succeeded"
    wait_until(lambda: not raw_redis.keys(f"rq:*{edit_id}*"))


def test_a_worker_paused_past_its_lease_neither_ends_nor_removes_the_edit(
    submit: Submit,
    look: Look,
    work: Work,
    raw_redis: Redis,
    repository: EditRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rq_worker, "LEASE_S", 1)
    monkeypatch.setattr(rq_worker, "RENEW_S", 1000)
    go_on = Event()
    edit_id = submit()
    first = work(FakeEngine(lambda: go_on.wait(20)))
    wait_until(lambda: look(edit_id).status == "running")
    first.stop()
    queue, reaper = normal_queue(raw_redis), Reaper(raw_redis, repository, 2)

    def handed_back() -> bool:
        reaper.tick()
        return bool(queue.count == 1)

    wait_until(handed_back)
    other = repository.start(edit_id)  # another worker has begun it
    go_on.set()
    wait_until(lambda: not first.executions)
    assert look(edit_id).status == "running", "the late worker's outcome is refused"
    assert queue.fetch_job(edit_id) is not None, "and it has not removed the job that is queued again"
    repository.release(edit_id, other, blameless=True)
    work(FakeEngine())
    record = ended(look, edit_id)
    assert (record.status, record.attempt) == ("succeeded", 3)


def test_a_job_that_vanished_is_passed_over(submit: Submit, look: Look, work: Work, raw_redis: Redis) -> None:
    gone, edit_id = submit(), submit()
    raw_redis.delete(f"rq:job:{gone}")
    work(FakeEngine())
    assert ended(look, edit_id).status == "succeeded"
    with pytest.raises(NoSuchJobError):
        normal_queue(raw_redis).job_class.fetch(gone, connection=raw_redis)
