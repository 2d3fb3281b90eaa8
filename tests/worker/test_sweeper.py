"""Files without an edit go, on every store, and nothing else does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
from redis import Redis

from jobs.blobs import BlobStore
from jobs.records import UPLOAD, Outcome, now
from jobs.repository import EditRepository
from jobs.settings import Settings
from tests.s3 import running_s3
from tests.support import submission, wait_until
from worker.sweeper import ORPHANS, Sweeper


@pytest.fixture(params=["folder", "bucket"])
def blobs(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    with running_s3(monkeypatch) if request.param == "bucket" else nullcontext() as s3:
        yield BlobStore.of(settings.model_copy(update={"store": s3.url if s3 else ""}))


@pytest.fixture
def sweeper(repository: EditRepository, blobs: BlobStore) -> Sweeper:
    return Sweeper(repository, blobs)


def sweeps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sweeper"]


def test_files_of_expired_edits_are_removed_and_others_kept(
    submit: Callable[[], str], sweeper: Sweeper, repository: EditRepository, blobs: BlobStore, redis: Redis
) -> None:
    kept, expired = submit(), submit()
    repository.commit(kept, None, Outcome(status="succeeded", completed_at=now()))
    blobs.put_output(expired, 1, "result.png", b"", "image/png")
    redis.pexpire(f"foi:edit:{expired}", 1)
    wait_until(lambda: repository.get(expired) is None)
    sweeper.sweep()
    assert sorted(blobs.edit_ids()) == sorted([kept, expired]), "seen once: its record may be about to be written"
    sweeper.sweep()
    assert blobs.edit_ids() == [kept]
    assert blobs.get(f"{kept}/in/{UPLOAD}")
    assert redis.exists(ORPHANS) == 0


def test_a_submit_between_its_files_and_its_record_is_safe(
    sweeper: Sweeper, repository: EditRepository, blobs: BlobStore
) -> None:
    new = submission()
    blobs.put_input(new.id, UPLOAD, b"", "image/png")
    sweeper.sweep()
    repository.create(new)
    sweeper.sweep()
    sweeper.sweep()
    assert blobs.edit_ids() == [new.id]


def test_what_one_worker_saw_another_removes(repository: EditRepository, blobs: BlobStore) -> None:
    blobs.put_input("edit_1", UPLOAD, b"", "image/png")
    Sweeper(repository, blobs).sweep()
    Sweeper(repository, blobs).sweep()
    assert blobs.edit_ids() == []


def test_many_workers_sweep_once_in_an_interval(repository: EditRepository, blobs: BlobStore, redis: Redis) -> None:
    blobs.put_input("edit_1", UPLOAD, b"", "image/png")
    for _ in range(3):
        Sweeper(repository, blobs).tick()
    wait_until(lambda: not sweeps())
    assert redis.smembers(ORPHANS) == {"edit_1"}
    assert blobs.edit_ids() == ["edit_1"]


def test_a_dead_store_is_told_and_swept_later(
    repository: EditRepository, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with running_s3(monkeypatch) as s3:
        sweeper = Sweeper(repository, BlobStore.of(Settings(store=s3.url)))
        s3.stop()
        sweeper.tick()
        wait_until(lambda: not sweeps())
        s3.start()
    assert "sweep not finished" in capfd.readouterr().out
