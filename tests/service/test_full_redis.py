"""A Redis that has no memory left refuses new edits; those that were accepted go on to their end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from redis import Redis

from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.keys import ApiKeys
from jobs.records import EditRecord, now
from jobs.redis_server import EmbeddedRedis
from jobs.repository import EditRepository
from jobs.settings import Settings
from jobs.webhooks import Attempt, DeliveryStore
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_bad_input import refused
from tests.service.test_deliveries import end, new_edit
from tests.service.test_edits import ONE, submit
from tests.service.test_stream import everything
from tests.support import FakeEngine, run_edit, wait_until
from worker.reporter import Reporter
from worker.room import Room
from worker.rq_worker import EditWorker
from worker.task import EditTask


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One of our own: the others' must not be full."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("full"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis(server: EmbeddedRedis) -> Iterator[Redis]:
    with connect(server.url, decode=True) as redis:
        redis.flushall()
        seen_a_moment_ago(redis)
        yield redis


@pytest.fixture
def client(server: EmbeddedRedis, own_redis: Redis, tmp_path: Path) -> Iterator[httpx.Client]:
    assert own_redis.ping()
    with serving(Settings(data_dir=tmp_path), server.url) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture
def own_blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@contextmanager
def full(redis: Redis) -> Iterator[None]:
    """While the block runs Redis is over its limit. Its reads are answered."""
    redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)


def test_the_embedded_redis_refuses_before_the_machine_is_full(raw_redis: Redis) -> None:
    assert int(raw_redis.config_get("maxmemory")["maxmemory"]) == 512 * 2**20
    assert raw_redis.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "mine"}])
def test_a_submit_is_503_leaves_nothing_and_may_be_sent_again(
    client: httpx.Client, own_redis: Redis, own_blobs: BlobStore, headers: dict[str, str]
) -> None:
    before = set(own_redis.keys("foi:edit*"))
    with full(own_redis):
        answer = submit(client, **headers)
        refused(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "5"
    assert set(own_redis.keys("foi:edit*")) == before
    assert own_redis.keys("foi:idempotency*") == []
    assert own_blobs.edit_ids() == []
    assert submit(client, **headers).status_code == 202


def test_what_only_reads_or_ends_an_edit_is_done(client: httpx.Client, own_redis: Redis) -> None:
    edit = submit(client).json()
    EditRepository(own_redis, 3600).start(edit["id"])
    with full(own_redis):
        assert client.get(edit["urls"]["self"]).json()["status"] == "running"
        assert client.get("/v1/edits").status_code == 200
        assert client.post(edit["urls"]["cancel"]).json()["status"] == "canceling"
        used, limit = (
            float(line.split()[1])
            for line in client.get("/metrics").text.splitlines()
            if line.startswith(("foi_redis_used_bytes ", "foi_redis_limit_bytes "))
        )
        assert used > limit == 1
        assert client.delete(edit["urls"]["self"]).status_code == 204
    assert client.get(edit["urls"]["self"]).status_code == 410


def test_whoever_has_a_key_can_look_listen_and_delete_too(
    server: EmbeddedRedis, own_redis: Redis, tmp_path: Path
) -> None:
    token, _ = ApiKeys(own_redis).create("mine")
    settings, headers = Settings(data_dir=tmp_path, auth="keys"), {"Authorization": f"Bearer {token}"}
    with (
        serving(settings, server.url) as url,
        httpx.Client(base_url=url, headers=headers, timeout=20) as client,
    ):
        edit = submit(client).json()
        events = client.post(f"{edit['urls']['events']}/token").json()["url"]
        with full(own_redis):
            refused(submit(client), 503, "unavailable")
            assert client.get(edit["urls"]["self"]).json()["status"] == "queued"
            assert client.post(edit["urls"]["cancel"]).json()["status"] == "canceled"
            assert client.post(f"{edit['urls']['events']}/token").status_code == 200
            with httpx.Client(base_url=url, timeout=20) as browser:
                assert everything(browser, events)[-1].event == "done"
            assert client.delete(edit["urls"]["self"]).status_code == 204


def test_an_edit_with_a_webhook_can_be_deleted_and_is_told_of_afterwards(
    client: httpx.Client, own_redis: Redis
) -> None:
    repository = EditRepository(own_redis, 3600)
    edit_id = new_edit(repository, "edit.canceled")
    with full(own_redis):
        assert client.delete(f"/v1/edits/{edit_id}").status_code == 204
    (claim,) = DeliveryStore(repository).claim(10)
    delivery = DeliveryStore(repository).load(claim)
    assert delivery is not None
    assert '"edit.canceled"' in delivery.body


def test_a_webhook_that_was_sent_is_written_down(own_redis: Redis) -> None:
    repository = EditRepository(own_redis, 3600)
    edit_id, store = new_edit(repository, "edit.succeeded"), DeliveryStore(repository)
    end(repository, edit_id)
    (claim,) = store.claim(10)
    delivery = store.load(claim)
    assert delivery is not None
    with full(own_redis):
        store.record(claim, delivery, Attempt(at=now(), status=500, error=None, ms=12), wobble=0)
    written = store.get(edit_id)
    assert written is not None
    assert [attempt.status for attempt in written.attempts] == [500]


def test_an_edit_that_runs_ends_all_the_same(client: httpx.Client, own_redis: Redis, own_blobs: BlobStore) -> None:
    began, goes_on = Event(), Event()

    def during() -> None:
        began.set()
        assert goes_on.wait(20)

    edit, repository = submit(client, {**ONE, "previews": "true"}).json(), EditRepository(own_redis, 3600)
    runner = Thread(target=run_edit, args=(FakeEngine(during), repository, own_blobs, edit["id"]))
    runner.start()
    assert began.wait(20)
    with full(own_redis):
        goes_on.set()
        ended = wait_until(lambda: _ended(repository, edit["id"]))
    runner.join(20)
    assert ended.status == "succeeded"
    found = client.get(edit["urls"]["self"]).json()
    assert client.get(found["outputs"][0]["url"]).status_code == 200


def test_a_worker_waits_until_there_is_memory(
    client: httpx.Client, server: EmbeddedRedis, own_redis: Redis, own_blobs: BlobStore
) -> None:
    edit, repository = submit(client).json(), EditRepository(own_redis, 3600)
    engine = FakeEngine().batching()
    reporter = Reporter(repository)
    task = EditTask(engine, reporter, repository, own_blobs, edit_timeout_s=60, max_deaths=2)
    refusals = _refusals(own_redis)
    worker = EditWorker("full", connect(server.url, patient=True), task, Room(1))
    thread = Thread(target=worker.work, args=(False, "WARNING"))
    with full(own_redis):
        thread.start()
        wait_until(lambda: _refusals(own_redis) > refusals + 1)
        assert _ended(repository, edit["id"]) is None
    assert wait_until(lambda: _ended(repository, edit["id"])).status == "succeeded"
    worker.stop()
    thread.join(20)
    reporter.close()
    engine.close()


def _ended(repository: EditRepository, edit_id: str) -> EditRecord | None:
    record = repository.get(edit_id)
    return record if record is not None and record.terminal else None


def _refusals(redis: Redis) -> int:
    found = redis.info("errorstats").get("errorstat_OOM", {"count": 0})
    return int(found["count"])
