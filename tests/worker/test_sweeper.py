"""Files without an edit go, on every store, and nothing else does."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from redis import Redis

from jobs import deployment
from jobs.blobs import BlobStore
from jobs.records import UPLOAD, Outcome, now
from jobs.repository import EditRepository
from jobs.settings import Settings
from tests.s3 import running_s3
from tests.support import python, submission, wait_until
from worker.sweeper import ORPHANS, Sweeper


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What FOI_STORE is."""
    with running_s3(monkeypatch) if request.param == "bucket" else nullcontext() as s3:
        yield s3.url if s3 else ""


@pytest.fixture
def blobs(store: str, settings: Settings) -> BlobStore:
    return BlobStore.of(settings.model_copy(update={"store": store}))


@pytest.fixture
def sweeper(repository: EditRepository, blobs: BlobStore) -> Sweeper:
    """Of a deployment that has begun with an empty store."""
    sweeper = Sweeper(repository, blobs)
    sweeper.sweep()
    return sweeper


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


def test_what_one_worker_saw_another_removes(sweeper: Sweeper, repository: EditRepository, blobs: BlobStore) -> None:
    blobs.put_input("edit_1", UPLOAD, b"", "image/png")
    sweeper.sweep()
    Sweeper(repository, blobs).sweep()
    assert blobs.edit_ids() == []


def test_many_workers_sweep_once_in_an_interval(repository: EditRepository, blobs: BlobStore, redis: Redis) -> None:
    deployment.adopt(redis, blobs)
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


def test_a_redis_that_was_flushed_costs_no_file(
    submit: Callable[[], str], sweeper: Sweeper, blobs: BlobStore, redis: Redis
) -> None:
    edit_id = submit()
    sweeper.sweep()
    redis.flushall()
    for _ in range(3):
        with pytest.raises(deployment.ForeignStoreError, match="adopt"):
            sweeper.sweep()
    assert blobs.edit_ids() == [edit_id]


def test_a_redis_of_another_deployment_costs_no_file(
    submit: Callable[[], str], sweeper: Sweeper, blobs: BlobStore, redis: Redis, tmp_path: Path
) -> None:
    edit_id = submit()
    sweeper.sweep()
    redis.flushall()
    deployment.adopt(redis, BlobStore(tmp_path / "its own store"))
    with pytest.raises(deployment.ForeignStoreError):
        sweeper.sweep()
    assert blobs.edit_ids() == [edit_id]


def test_a_redis_that_forgot_a_store_from_before_there_were_ids_costs_no_file(
    submit: Callable[[], str], repository: EditRepository, blobs: BlobStore, redis: Redis
) -> None:
    edit_id = submit()
    redis.flushall()
    for _ in range(3):
        with pytest.raises(deployment.ForeignStoreError):
            Sweeper(repository, blobs).sweep()
    assert blobs.edit_ids() == [edit_id]


def test_a_deployment_from_before_there_were_ids_is_swept_as_it_was(
    submit: Callable[[], str], repository: EditRepository, blobs: BlobStore, redis: Redis
) -> None:
    kept, expired = submit(), submit()
    redis.delete(f"foi:edit:{expired}")
    for _ in range(2):
        Sweeper(repository, blobs).sweep()
    assert blobs.edit_ids() == [kept]
    assert blobs.deployment() == redis.get(deployment.DEPLOYMENT)


def test_the_log_says_why_nothing_is_swept(
    submit: Callable[[], str], sweeper: Sweeper, redis: Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    submit()
    redis.flushall()
    sweeper.tick()
    wait_until(lambda: not sweeps())
    said = capfd.readouterr().out
    assert "not swept" in said
    assert deployment.ADOPT in said


def test_a_redis_that_is_new_on_purpose_is_adopted_by_a_command(
    submit: Callable[[], str], sweeper: Sweeper, blobs: BlobStore, store: str, settings: Settings, redis: Redis
) -> None:
    submit()
    redis.flushall()
    environment = {
        "FOI_DATA_DIR": str(settings.data_dir),
        "FOI_REDIS_URL": str(settings.redis_url),
        "FOI_STORE": store,
    }
    command = deployment.ADOPT.removeprefix("python ").split()
    assert python(*command, environment=environment, stdout=subprocess.DEVNULL).wait(60) == 0
    kept = submit()
    for _ in range(2):
        sweeper.sweep()
    assert blobs.edit_ids() == [kept]
