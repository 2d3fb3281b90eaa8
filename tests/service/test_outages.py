"""When a part is missing, the caller is told so, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from starlette.datastructures import UploadFile

from jobs import presence
from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.idempotency import IdempotencyKeys
from jobs.queue import EditQueue
from jobs.redis_server import EmbeddedRedis
from jobs.repository import EditRepository
from jobs.settings import Settings
from service.forms import Form
from service.submit import Intake
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_bad_input import refused
from tests.service.test_edits import submit
from tests.support import encoded, picture


@pytest.fixture
def stoppable(tmp_path: Path) -> Iterator[tuple[httpx.Client, EmbeddedRedis, Path]]:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    with serving(Settings(data_dir=tmp_path), server.url) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client, server, tmp_path / "blobs"
    server.stop()


def test_without_redis_a_submit_is_503_and_leaves_no_file_until_redis_is_back(
    stoppable: tuple[httpx.Client, EmbeddedRedis, Path],
) -> None:
    client, server, folder = stoppable
    with connect(server.url, decode=True) as redis:
        seen_a_moment_ago(redis)
    assert submit(client).status_code == 202
    kept = sorted(folder.rglob("*"))
    server.stop()
    answer = submit(client)
    refused(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    assert sorted(folder.rglob("*")) == kept
    assert client.get("/livez").status_code == 200
    assert refused(client.get("/readyz"), 503, "not-ready")["redis"] != "ok"
    refused(client.get("/v1/edits/edit_" + "0" * 32), 503, "unavailable")
    server.start()
    assert submit(client).status_code == 202


class BrokenQueue(EditQueue):
    def enqueue(self, *_: object) -> None:
        raise RedisConnectionError("gone")


def test_an_edit_that_cannot_be_queued_is_failed_and_its_files_are_removed(
    repository: EditRepository, blobs: BlobStore, raw_redis: Redis, redis: Redis, settings: Settings
) -> None:
    intake = Intake(settings, repository, blobs, BrokenQueue(raw_redis), IdempotencyKeys(repository))
    seen_a_moment_ago(redis)
    form = Form({"instruction": ["make it red"]}, {"image": UploadFile(BytesIO(encoded(picture())))})
    with pytest.raises(RedisConnectionError):
        intake.finish(intake.begin(form, "", None), form, (48, 32))
    (key,) = redis.keys("foi:edit:*")
    record = repository.get(key.removeprefix("foi:edit:"))
    assert record is not None
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error.type == "/problems/unavailable"
    assert blobs.edit_ids() == []


def test_a_full_queue_is_503_and_stores_nothing(
    client: httpx.Client, stored: Callable[[], set[str]], raw_redis: Redis, served_settings: Settings
) -> None:
    raw_redis.rpush("rq:queue:edits-low", *range(served_settings.max_queue))
    before = stored()
    answer = submit(client)
    refused(answer, 503, "queue-full")
    assert answer.headers["retry-after"] == "10"
    assert stored() == before


def test_without_any_sign_of_a_worker_an_edit_is_not_accepted(
    client: httpx.Client, redis: Redis, stored: Callable[[], set[str]]
) -> None:
    redis.flushall()
    before = stored()
    answer = submit(client)
    refused(answer, 503, "no-workers")
    assert answer.headers["retry-after"] == "10"
    assert stored() == before


def test_ready_needs_a_warm_worker(client: httpx.Client, redis: Redis) -> None:
    assert refused(client.get("/readyz"), 503, "not-ready")["workers"] == "no worker"
    worker = presence.WorkerPresence(name="w", state="starting", model="demo")
    presence.publish(redis, worker)
    assert refused(client.get("/readyz"), 503, "not-ready")["workers"] == "starting"
    presence.publish(redis, worker.model_copy(update={"state": "ready"}))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "redis": "ok", "store": "ok", "workers": "ok"},
    )


def test_ready_needs_a_store_that_can_be_written(tmp_path: Path, redis: Redis, redis_url: str) -> None:
    settings = Settings(data_dir=tmp_path, redis_url=redis_url)
    seen_a_moment_ago(redis)
    with serving(settings, redis_url) as url:
        (tmp_path / "blobs").rmdir()
        (tmp_path / "blobs").write_text("a file where the folder was")
        assert "not writable" in refused(httpx.get(f"{url}/readyz"), 503, "not-ready")["store"]
        refused(
            httpx.post(f"{url}/v1/edits", files={"image": encoded(picture())}, data={"instruction": "make it red"}),
            503,
            "unavailable",
        )
        assert redis.keys("foi:edit:*") == []
