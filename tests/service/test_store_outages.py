"""A store that is away or full: the caller is told, and nothing is half there. A bucket as the store, end to end."""

from __future__ import annotations

import resource
import socket
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from redis import Redis

from jobs import object_store
from jobs.blobs import BlobStore
from jobs.queue import EditQueue
from jobs.repository import EditRepository
from jobs.settings import Settings
from tests.s3 import S3, running_s3
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_bad_input import refused
from tests.service.test_edits import submit
from tests.support import FakeEngine, encoded, picture, python, run_edit, wait_until


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    monkeypatch.setattr(object_store, "PROBE_S", 0)
    with running_s3(monkeypatch) as server:
        yield server


@pytest.fixture
def bucket_settings(settings: Settings, s3: S3) -> Settings:
    return settings.model_copy(update={"store": s3.url, "signed_url_s": 90})


@pytest.fixture
def client(bucket_settings: Settings, redis_url: str, redis: Redis) -> Iterator[httpx.Client]:
    with serving(bucket_settings, redis_url) as url, httpx.Client(base_url=url, timeout=20) as client:
        seen_a_moment_ago(redis)
        yield client


def test_an_edit_lives_and_dies_in_a_bucket(
    client: httpx.Client, bucket_settings: Settings, repository: EditRepository, s3: S3
) -> None:
    edit = submit(client).json()
    assert s3.stored() == [f"edits/{edit['id']}/in/upload"]
    run_edit(FakeEngine(), repository, BlobStore.of(bucket_settings), edit["id"])
    edit = client.get(edit["urls"]["self"]).json()
    assert edit["status"] == "succeeded"

    address = edit["outputs"][0]["url"]
    answer = client.get(address)
    assert (answer.status_code, answer.headers["cache-control"]) == (302, "private, max-age=45")
    assert "X-Amz-Expires=90&" in answer.headers["location"]
    found = httpx.get(answer.headers["location"])
    assert (found.status_code, found.headers["content-type"]) == (200, "image/png")
    assert Image.open(BytesIO(found.content)).size == (48, 32)
    part = httpx.get(answer.headers["location"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, found.content[:4])
    head = client.head(address)
    assert (head.status_code, httpx.head(head.headers["location"]).status_code) == (302, 200)
    same = client.get(address, headers={"If-None-Match": f'"{edit["outputs"][0]["sha256"]}"'})
    assert same.status_code == 304

    assert client.delete(edit["urls"]["self"]).status_code == 204
    assert s3.stored() == []
    refused(client.get(address), 410, "expired")


def test_names_that_the_edit_does_not_have_get_no_signed_address(client: httpx.Client) -> None:
    edit = submit(client).json()
    for name in ("result.png", "..%2f..%2fother", "in%2finput.png"):
        assert client.get(f"{edit['urls']['self']}/files/{name}").status_code == 404
    assert client.get(f"/v1/edits/edit_{'0' * 32}/files/input.png").status_code == 404


def test_a_submit_to_a_dead_bucket_is_503_and_leaves_nothing_until_it_is_back(
    client: httpx.Client, s3: S3, redis: Redis, queue: EditQueue
) -> None:
    s3.stop()
    answer = submit(client, **{"Idempotency-Key": "one"})
    refused(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    assert answer.elapsed.total_seconds() < 10
    assert redis.keys("foi:edit:*") + redis.keys("rq:job:*") == []
    assert queue.length() == 0
    assert "not writable" in refused(client.get("/readyz"), 503, "not-ready")["store"]
    s3.start()
    assert s3.stored() == []
    assert client.get("/readyz").json()["store"] == "ok"
    assert submit(client, **{"Idempotency-Key": "one"}).status_code == 202


def test_a_bucket_that_is_deleted_under_the_service_is_503(client: httpx.Client, s3: S3, redis: Redis) -> None:
    httpx.delete(f"{s3.endpoint}/{s3.bucket}").raise_for_status()
    refused(submit(client), 503, "unavailable")
    assert redis.keys("foi:edit:*") == []
    assert "not writable" in refused(client.get("/readyz"), 503, "not-ready")["store"]


@pytest.fixture
def service(redis_url: str, redis: Redis, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A service of its own process, so that its disk can be full."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"FOI_REDIS_URL": redis_url, "FOI_DATA_DIR": str(tmp_path), "FOI_PORT": str(port)}
    process = python("-m", "service", environment=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        try:
            wait_until(lambda: answers(client))
            seen_a_moment_ago(redis)
            yield process, client
        finally:
            process.terminate()
            process.wait(20)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def test_a_full_disk_is_503_and_leaves_nothing_until_there_is_room(
    service: tuple[subprocess.Popen[str], httpx.Client], redis: Redis, queue: EditQueue, tmp_path: Path
) -> None:
    process, client = service
    unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, unlimited[1]))  # fails a write in its middle
    masked = {  # the picture can be stored, and then the mask cannot
        "files": {"image": encoded(Image.new("RGB", (128, 128))), "mask": encoded(picture(128, 128))},
        "data": {"instructions": '[{"text": "make it red", "mask": "mask"}]'},
    }
    for answer in (submit(client), client.post("/v1/edits", **masked)):
        refused(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "5"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert redis.keys("foi:edit:*") + redis.keys("rq:job:*") == []
    assert queue.length() == 0
    assert "not writable" in refused(client.get("/readyz"), 503, "not-ready")["store"]
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
    assert submit(client).status_code == 202


@pytest.mark.parametrize("module", ["service", "worker", "worker.supervisor"])
def test_a_store_that_cannot_work_ends_the_start_and_says_why(module: str, redis_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"FOI_REDIS_URL": redis_url, "FOI_DATA_DIR": str(tmp_path), "FOI_PORT": str(port)}
    process = python("-m", module, environment={**environment, "FOI_STORE": "ftp://here"}, stderr=subprocess.PIPE)
    try:
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1
    assert told.startswith("foi: FOI_STORE='ftp://here' is not an address of a store; expected s3://")
    assert len(told.splitlines()) == 1
