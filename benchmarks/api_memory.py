"""How much memory the HTTP service needs at worst: the largest legal requests, several at once, to a real process.

    python -m benchmarks.api_memory                 # every case, eight at once
    python -m benchmarks.api_memory --at-once 1 --n 3 --cases answer

Each case prints the peak of the service's resident memory (VmHWM), which the kernel resets before it. No model runs:
this process ends the edits, with files as large as a result of that size can be.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageCms
from redis import Redis

from jobs import presence
from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.records import EditRecord, Metrics, Outcome, Output, StoredFile, now
from jobs.redis_server import EmbeddedRedis
from jobs.repository import EditRepository

SIZE = (8000, 5000)
"""40 megapixels: what FOI_MAX_PIXELS allows by default."""
MASKS = 8
CASES = ("png", "jpeg", "webp", "answer", "input", "download")
Send = Callable[[httpx.Client], str]


def picture(kind: str) -> bytes:
    """The picture that costs most to decode: in the mode and the layout that need most bytes for each pixel."""
    across = np.linspace(0, 255, SIZE[0], dtype=np.uint8)
    levels = np.broadcast_to(across[None, :, None], (SIZE[1], SIZE[0], 4)).copy()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    if kind == "jpeg":
        Image.fromarray(levels, "CMYK").save(buffer, "JPEG", progressive=True, subsampling=0)
    elif kind == "webp":
        Image.fromarray(levels, "RGBA").save(buffer, "WEBP", lossless=True, method=0, icc_profile=profile)
    else:
        Image.fromarray(levels, "RGBA").save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()


def mask(mode: str) -> bytes:
    """White, and where it has transparency also fully transparent in a corner: legal for both of the mask's routes."""
    white = Image.new(mode, SIZE, "white")
    if mode == "RGBA":
        white.paste((255, 255, 255, 0), (0, 0, 100, 100))
    buffer = io.BytesIO()
    white.save(buffer, "PNG")
    return buffer.getvalue()


def noise() -> bytes:
    """A result that compresses to nothing less than it is."""
    levels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def submit(client: httpx.Client, image: bytes, masks: bytes, n: int) -> str:
    parts = [f'{{"text": "make the ball {i}", "mask": "m{i}"}}' for i in range(MASKS)]
    files = {"image": image, **{f"m{i}": masks for i in range(MASKS)}}
    answer = client.post("/v1/edits", data={"instructions": f"[{', '.join(parts)}]", "n": str(n)}, files=files)
    return str(answer.status_code)


def openai_edit(client: httpx.Client, image: bytes, masks: bytes, n: int) -> str:
    data = {"prompt": "make the ball red", "n": str(n), "response_format": "b64_json"}
    with client.stream("POST", "/v1/images/edits", data=data, files={"image": image, "mask": masks}) as answer:
        return f"{answer.status_code} with {drained(answer) >> 20} MiB"


def fetched(client: httpx.Client, url: str) -> str:
    with client.stream("GET", url) as answer:
        return f"{answer.status_code} with {drained(answer) >> 20} MiB"


def drained(answer: httpx.Response) -> int:
    return sum(len(chunk) for chunk in answer.iter_bytes())


class Ender:
    """Ends every edit that waits, as a worker would: with one large file for each output."""

    def __init__(self, redis: Redis, blobs: BlobStore, result: Path) -> None:
        self._repository, self._blobs, self._result = EditRepository(redis, 3600), blobs, result
        self._done = Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.2):
            presence.publish(self._repository.redis, presence.WorkerPresence(name="none", state="ready", model="none"))
            for record in self._repository.page("*", 100, statuses=("queued",))[0]:
                self._end(record)

    def _end(self, record: EditRecord) -> None:
        edit_id, size, files = record.submission.id, record.submission.input, {}
        attempt = self._repository.start(edit_id)
        assert attempt is not None
        for name in (f"result-{i}.png" for i in range(size.n)):
            key = f"{edit_id}/out-{attempt}/{name}"
            assert self._blobs.root is not None
            path = self._blobs.root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(self._result, path)  # the same bytes each time: what is measured reads them anew
            length = self._result.stat().st_size
            files[name] = StoredFile(key=key, media_type="image/png", sha256=f"{name}", size=length)
        outputs = tuple(Output(seed=0, file=name, width=size.width, height=size.height) for name in files)
        metrics = Metrics(queue_ms=0, run_ms=0, mask_area=None, change_outside_mask=None)
        outcome = Outcome(status="succeeded", completed_at=now(), files=files, outputs=outputs, metrics=metrics)
        self._repository.commit(edit_id, attempt, outcome)


@contextmanager
def service(folder: Path, redis_url: str) -> Iterator[tuple[str, int]]:
    """A service's address and process id."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {**os.environ, "FOI_PORT": str(port), "FOI_DATA_DIR": str(folder), "FOI_REDIS_URL": redis_url}
    process = subprocess.Popen([sys.executable, "-m", "service"], env=environment, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                if httpx.get(f"{address}/livez").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def peak(pid: int, work: Callable[[], Any]) -> tuple[Any, int]:
    """What the work returns, and the most memory that the process held while it ran, in MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    found = work()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return found, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def prepared(case: str, n: int, address: str) -> Send:
    """The request of one case, with everything made that it needs."""
    if case in ("png", "jpeg", "webp"):
        return partial(submit, image=picture(case), masks=mask("RGBA"), n=n)
    if case == "answer":
        return partial(openai_edit, image=picture("png"), masks=mask("RGBA"), n=n)
    with httpx.Client(base_url=address, timeout=600) as client:
        files = {"image": picture("webp" if case == "input" else "png")}
        fields = {"instruction": "make the ball red"}
        edit = client.post("/v1/edits", data=fields, files=files, headers={"Prefer": "wait=30"}).json()
    return partial(fetched, url=f"{edit['urls']['self']}/files/{'input' if case == 'input' else 'result-0'}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--n", type=int, default=8, help="outputs of each edit")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        result = folder / "result"
        result.write_bytes(noise())
        server = EmbeddedRedis(folder / "redis")
        server.start()
        ender = Ender(connect(server.url, decode=True), BlobStore(folder / "blobs"), result)
        try:
            with service(folder, server.url) as (address, pid):
                print(f"at rest: {peak(pid, lambda: None)[1]} MiB", flush=True)
                for case in options.cases:
                    send = prepared(case, options.n, address)
                    began = time.monotonic()
                    answers, highest = peak(pid, partial(at_once, options.at_once, address, send))
                    seconds = time.monotonic() - began
                    print(f"{case}: peak {highest} MiB, {seconds:.0f} s, {dict(Counter(answers))}", flush=True)
        finally:
            ender.close()
            server.stop()


def at_once(count: int, address: str, send: Send) -> list[str]:
    def one(_: int) -> str:
        with httpx.Client(base_url=address, timeout=600) as client:
            try:
                return send(client)
            except httpx.HTTPError as error:
                return type(error).__name__

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


if __name__ == "__main__":
    main()
