"""The service is told to end (SIGTERM) while callers wait: each is answered, and finds its edit again."""

from __future__ import annotations

import base64
import io
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import openai
import pytest
from openai.types import ImagesResponse
from PIL import Image
from redis import Redis

from jobs.blobs import BlobStore
from jobs.records import EditRecord
from jobs.repository import ALL_OWNERS, EditRepository
from tests.service.conftest import Service
from tests.service.test_edits import submit
from tests.service.test_openai_images import PROMPT, extra, png, talking_to
from tests.service.test_stream import Frame, everything, frames
from tests.support import FakeEngine, encoded, picture, run_edit, wait_until

WAITS_S = 45


@pytest.fixture
def caller(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=WAITS_S) as client:
        yield client


@contextmanager
def beside(call: Callable[[], Any]) -> Iterator[Any]:
    """The call is made beside the block; its future."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


def edited(service: Service, max_retries: int = 8, **fields: Any) -> Callable[[], ImagesResponse]:
    """A call of OpenAI's client, which repeats it by itself."""

    def call() -> ImagesResponse:
        with talking_to(service.url, max_retries=max_retries, timeout=WAITS_S) as theirs:
            return theirs.images.edit(image=png(), prompt=PROMPT, **fields)

    return call


def edits(repository: EditRepository) -> list[EditRecord]:
    return repository.page(ALL_OWNERS, 10)[0]


def waits(redis: Redis) -> bool:
    """Whether the service waits for events."""
    return any(one["cmd"] == "xread" and "b" in one["flags"] for one in redis.client_list())


@pytest.mark.parametrize("path", ["/v1/edits", "/v1/masks"])
def test_who_waits_for_an_edit_gets_202_and_its_address(
    service: Service, caller: httpx.Client, redis: Redis, path: str
) -> None:
    with beside(lambda: submit(caller, path=path, Prefer="wait=40")) as waiting:
        wait_until(lambda: waits(redis))
        service.terminate()
        answer: httpx.Response = waiting.result(20)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/edits/{answer.json()['id']}"
    assert answer.json()["status"] == "queued"
    assert service.ended() == 0
    assert "Traceback" not in service.log


def test_openais_client_finds_its_edit_again_by_itself(
    service: Service, redis: Redis, repository: EditRepository, blobs: BlobStore
) -> None:
    with beside(edited(service, n=2)) as waiting:
        wait_until(lambda: waits(redis))
        service.restart()
        (record,) = edits(repository)
        run_edit(FakeEngine(), repository, blobs, record.submission.id)
        answer = waiting.result(WAITS_S)
    assert extra(answer)["edit_id"] == record.submission.id
    assert [one.submission.id for one in edits(repository)] == [record.submission.id]
    assert Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json or ""))).size == (48, 32)


def test_an_openai_call_is_told_its_edit_and_when_to_come_again(
    service: Service, redis: Redis, repository: EditRepository
) -> None:
    with beside(edited(service, max_retries=0)) as waiting:
        wait_until(lambda: waits(redis))
        service.terminate()
        with pytest.raises(openai.InternalServerError) as caught:
            waiting.result(20)
    (record,) = edits(repository)
    error: Any = caught.value
    assert (error.status_code, error.code, error.response.headers["retry-after"]) == (503, "unavailable", "5")
    assert error.body["edit_id"] == record.submission.id
    assert record.submission.id in str(error)
    assert record.status == "queued", "it goes on"


def test_two_equal_calls_find_an_edit_each_and_a_third_makes_its_own(
    service: Service, redis: Redis, repository: EditRepository, blobs: BlobStore
) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(edited(service)) for _ in range(2)]
        wait_until(lambda: len(edits(repository)) == 2)
        wait_until(lambda: waits(redis))
        service.restart()
        before = {record.submission.id for record in edits(repository)}
        for edit_id in before:
            run_edit(FakeEngine(), repository, blobs, edit_id)
        assert {extra(one.result(WAITS_S))["edit_id"] for one in waiting} == before
        third = pool.submit(edited(service))
        (new,) = wait_until(lambda: [one for one in edits(repository) if one.submission.id not in before])
        run_edit(FakeEngine(), repository, blobs, new.submission.id)
        assert extra(third.result(20))["edit_id"] == new.submission.id


def test_an_interrupted_edit_that_was_canceled_meanwhile_is_not_found_again(
    service: Service, redis: Redis, repository: EditRepository, blobs: BlobStore
) -> None:
    with beside(edited(service)) as waiting:
        wait_until(lambda: waits(redis))
        service.terminate()
        service.ended()
        (record,) = edits(repository)
        repository.cancel(record.submission.id)
        service.start()
        (new,) = wait_until(lambda: [one for one in edits(repository) if one.status == "queued"])
        run_edit(FakeEngine(), repository, blobs, new.submission.id)
        assert extra(waiting.result(WAITS_S))["edit_id"] == new.submission.id


def test_event_streams_end_whole_and_go_on_after_the_restart(
    service: Service, caller: httpx.Client, redis: Redis, repository: EditRepository, blobs: BlobStore
) -> None:
    edit = submit(caller).json()
    heard: list[Frame] = []
    with caller.stream("GET", edit["urls"]["events"]) as answer:
        found = frames(answer)
        heard.append(next(found))
        wait_until(lambda: waits(redis))
        service.terminate()
        heard += found  # httpx raises where an answer is cut off
    assert service.ended() == 0
    assert "Traceback" not in service.log
    service.start()
    runner = Thread(target=run_edit, args=(FakeEngine(), repository, blobs, edit["id"]))
    runner.start()
    heard += everything(caller, edit["urls"]["events"], after=heard[-1].id)
    runner.join()
    assert heard[-1].event == "done"
    assert len({frame.id for frame in heard}) == len(heard)


def test_an_upload_that_is_not_done_in_time_is_told_to_come_again(service: Service) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="i.png"\r\n\r\n' + encoded(picture())[:99]
    head = b"POST /v1/edits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as one:
        one.settimeout(30)
        one.sendall(head + b"Content-Length: 5000\r\n\r\n" + body)
        wait_until(lambda: established(service) == 1)
        service.terminate()
        answer = b"".join(iter(lambda: one.recv(65_536), b""))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 "), answer
    assert b"retry-after: 5" in head.lower()
    assert b"/problems/unavailable" in rest
    assert service.ended() == 0


def test_an_upload_that_is_done_in_time_is_taken_in(service: Service, repository: EditRepository) -> None:
    request = httpx.Request(
        "POST", f"{service.url}/v1/edits", files={"image": encoded(picture())}, data={"instruction": PROMPT}
    )
    body = request.read()
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as one:
        one.settimeout(30)
        lines = [b"POST /v1/edits HTTP/1.1", *(name + b": " + value for name, value in request.headers.raw)]
        one.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body[:100])
        wait_until(lambda: established(service) == 1)
        service.terminate()
        wait_until(lambda: not listens(service))
        one.sendall(body[100:])
        answer = b"".join(iter(lambda: one.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 202 "), answer
    assert len(edits(repository)) == 1
    assert service.ended() == 0


def established(service: Service) -> int:
    """Connections that the service has taken."""
    assert service.process is not None
    names = [str(path.readlink()) for path in Path(f"/proc/{service.process.pid}/fd").iterdir() if path.is_symlink()]
    inodes = {name[8:-1] for name in names if name.startswith("socket:")}
    port = f":{int(service.url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" and row[9] in inodes for row in rows)


def listens(service: Service) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))).close()
    except ConnectionRefusedError:
        return False
    return True
