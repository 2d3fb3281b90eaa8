"""However large what callers send and fetch is, the service holds little of it at a time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier, Event
from typing import Any, BinaryIO

import httpx
import numpy as np
import pytest
from PIL import Image

from jobs import pictures
from jobs.blobs import BlobStore
from jobs.processes import map_large_blocks
from jobs.records import EditRecord, Metrics, Outcome, Output, StoredFile, now
from jobs.repository import ALL_OWNERS, EditRepository
from jobs.settings import Settings
from service.images import Reader
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_bad_files import peak_growth
from tests.service.test_edits import submit
from tests.support import encoded, picture, wait_until

SIDE = 2000
SLACK_BYTES = 12 * 2**20
"""What is no picture: bands of one, buffers, the interpreter's own."""
LEVELS = np.broadcast_to(np.linspace(0, 255, SIDE, dtype=np.uint8)[None, :, None], (SIDE, SIDE, 4))
FILES = {
    "png with transparency": encoded(Image.fromarray(LEVELS, "RGBA")),
    "16-bit png": encoded(Image.fromarray(LEVELS[:, :, 0].astype(np.uint16) * 256)),
    "progressive jpeg": encoded(Image.fromarray(LEVELS, "CMYK"), "JPEG", progressive=True, subsampling=0),
    "webp": encoded(Image.fromarray(LEVELS, "RGBA"), "WEBP", lossless=True, method=0),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_picture_takes_no_more_memory_than_its_header_was_taken_to_mean(kind: str) -> None:
    map_large_blocks(2**20)  # as the service does
    file = io.BytesIO(FILES[kind])
    memory = pictures.read_memory(file, SIDE**2)
    assert peak_growth(lambda: pictures.read_memory(file, SIDE**2)) < SLACK_BYTES
    reads = (
        lambda: pictures.check_picture(file, SIDE**2),
        lambda: pictures.read_picture(file, SIDE**2),
        lambda: pictures.read_mask(file, (SIDE, SIDE), SIDE**2),
        lambda: pictures.read_transparent(file, SIDE**2),
    )
    for read in reads:
        file.seek(0)
        assert peak_growth(read) < memory + SLACK_BYTES


def test_pictures_that_do_not_fit_together_are_read_one_after_the_other() -> None:
    running, most = 0, 0

    def read() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)  # long enough for another to come, if it could
        running -= 1

    async def several(memory: int) -> None:
        reader = Reader(100, memory=10)
        await asyncio.gather(*(reader.read(memory, read) for _ in range(20)))

    asyncio.run(several(6))
    assert most == 1


def test_pictures_that_fit_together_are_read_at_once() -> None:
    async def both() -> None:
        reader, together = Reader(100, memory=10), Barrier(2)
        await asyncio.gather(*(reader.read(5, partial(together.wait, 20)) for _ in range(2)))

    asyncio.run(both())


def test_one_that_is_larger_than_all_there_is_is_read_alone_and_others_after_it() -> None:
    async def three() -> list[str]:
        reader = Reader(100, memory=10)
        return list(await asyncio.gather(*(reader.read(memory, str(memory).strip) for memory in (9, 99, 1))))

    assert asyncio.run(three()) == ["9", "99", "1"]


def test_one_that_gives_up_waiting_leaves_the_memory_to_the_others() -> None:
    async def given_up() -> str:
        reader, goes_on = Reader(100, memory=10), Event()
        first = asyncio.create_task(reader.read(10, goes_on.wait))
        await asyncio.sleep(0)
        second = asyncio.create_task(reader.read(10, lambda: None))
        await asyncio.sleep(0.05)
        second.cancel()
        goes_on.set()
        await first
        return await reader.read(10, "done".strip)

    assert asyncio.run(given_up()) == "done"


def test_an_answer_with_its_files_in_it_is_sent_a_piece_at_a_time(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    large = [np.random.default_rng(i).bytes(30 * 2**20 + i) for i in range(3)]
    found: list[str] = []

    def call() -> None:
        data = {"prompt": "make it red", "n": "3"}
        with client.stream("POST", "/v1/images/edits", data=data, files={"image": encoded(picture())}) as answer:
            assert answer.status_code == 200
            digest, length = hashlib.sha256(), 0
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                length += len(chunk)
            assert length == int(answer.headers["content-length"])
            found.append(digest.hexdigest())

    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call)
        record = wait_until(lambda: _only(repository))
        outcome = _ended_with(record, large, served_blobs)
        assert peak_growth(lambda: _answered(repository, record, outcome, calling)) < 30e6
    edit = client.get(f"/v1/edits/{record.submission.id}").json()
    body = {
        "created": int(outcome.completed_at.timestamp()), "background": "opaque", "output_format": "png", "size": "1x1",
        "foi": {"edit_id": edit["id"], **{k: edit[k] for k in ("outputs", "masks", "metrics", "warnings")}},
        "data": [{"b64_json": base64.b64encode(file).decode()} for file in large],
    }  # fmt: skip
    assert found == [hashlib.sha256(json.dumps(body).encode()).hexdigest()]


def _answered(repository: EditRepository, record: EditRecord, outcome: Outcome, calling: Future[None]) -> None:
    assert repository.commit(record.submission.id, None, outcome)
    calling.result(30)


def _only(repository: EditRepository) -> EditRecord | None:
    found = repository.page(ALL_OWNERS, 1)[0]
    return found[0] if found else None


def _ended_with(record: EditRecord, files: list[bytes], blobs: BlobStore) -> Outcome:
    edit_id = record.submission.id
    stored = {f"{i}.png": blobs.put_output(edit_id, 1, f"{i}.png", file, "image/png") for i, file in enumerate(files)}
    outputs = tuple(Output(seed=0, file=name, width=1, height=1) for name in stored)
    metrics = Metrics(queue_ms=0, run_ms=0, mask_area=None, change_outside_mask=None)
    return Outcome(status="succeeded", completed_at=now(), files=stored, outputs=outputs, metrics=metrics)


def test_slow_uploads_to_the_store_do_not_stop_other_submits(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, begun, goes_on = 4, [], Event()
    put_input = BlobStore.put_input

    def hesitant(self: BlobStore, edit_id: str, name: str, data: bytes | BinaryIO, media_type: str) -> StoredFile:
        if len(begun) < slow:
            begun.append(edit_id)
            assert goes_on.wait(20)
        return put_input(self, edit_id, name, data, media_type)

    monkeypatch.setattr(BlobStore, "put_input", hesitant)
    with ThreadPoolExecutor(slow) as pool:
        waiting = [pool.submit(submit, client) for _ in range(slow)]
        try:
            wait_until(lambda: len(begun) == slow)
            assert submit(client).status_code == 202
        finally:
            goes_on.set()
        assert [one.result(20).status_code for one in waiting] == [202] * slow


def test_a_limit_above_pillows_own_is_obeyed() -> None:
    """Pillow refuses pictures of more than 179 million pixels by itself, whatever the setting says."""
    large = encoded(Image.new("1", (13_400, 13_400), 1))
    pixels = 13_400**2
    assert pictures.check_picture(io.BytesIO(large), pixels) == (13_400, 13_400)
    with pytest.raises(pictures.BadPictureError, match=f"more than {pixels - 1} pixels"):
        pictures.read_memory(io.BytesIO(large), pixels - 1)


@pytest.mark.parametrize(("kind", "status"), [("webp", 422), ("png", 202), ("jpeg", 202)])
def test_a_format_that_cannot_hold_the_result_is_refused_at_submit(
    kind: str, status: int, tmp_path: Path, redis: Any, redis_url: str
) -> None:
    seen_a_moment_ago(redis)
    wide = encoded(Image.new("1", (16_384, 2048)))
    settings = Settings(data_dir=tmp_path, redis_url=redis_url)
    with serving(settings, redis_url) as url, httpx.Client(base_url=url, timeout=20) as client:
        fields = {"instruction": "make it red", "output_format": kind}
        answer = client.post("/v1/edits", files={"image": wide}, data=fields)
        assert answer.status_code == status
        if status == 422:
            assert answer.json()["errors"][0]["pointer"] == "/output_format"
            assert "png or jpeg: the picture is 16384x2048" in answer.json()["detail"]
            fields["output_size"] = "model"
            assert client.post("/v1/edits", files={"image": wide}, data=fields).status_code == 202
