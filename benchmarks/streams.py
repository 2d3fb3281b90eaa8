"""`python -m benchmarks.streams`: one HTTP service with many open event streams, each of another edit.

Prints the service's memory and CPU and the commands that Redis gets, without streams, while all wait, while their edits
report progress, and how many streams hear of the end. API keys are on: streams of a key are counted, and end when it is
revoked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from redis import Redis

from benchmarks.api import FORM, photo, service_on_one_core
from benchmarks.machine import describe
from jobs.connection import connect
from jobs.keys import ApiKeys
from jobs.records import Outcome, Progress, new_edit_id
from jobs.repository import EditRepository, Report

STREAMS = 2000
STREAMS_PER_KEY = 4
REPORTS = 200
"""Edits that report a step each second."""
TICKS = os.sysconf("SC_CLK_TCK")


class Service:
    """The process that is measured, and its Redis."""

    def __init__(self, pid: int, redis: Redis) -> None:
        self._pid, self._redis = pid, redis

    def memory_mib(self) -> float:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def watched(self, seconds: float) -> dict[str, float]:
        """Over so many seconds: memory at the end, share of a core, commands of Redis a second, its clients."""
        cpu, commands, begun = self._cpu_s(), self._commands(), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - begun
        return {
            "mib": round(self.memory_mib(), 1),
            "cpu_share": round((self._cpu_s() - cpu) / took, 3),
            "redis_commands_per_s": round((self._commands() - commands - 1) / took, 1),
            "redis_clients": self._redis.info("clients")["connected_clients"],
        }

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _commands(self) -> int:
        return int(self._redis.info("stats")["total_commands_processed"])


class Listener:
    """One event stream, over a socket of its own: lighter than an HTTP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, url: str, edit_id: str, token: str) -> Listener | None:
        """Open when its first event has come; None where the service refuses it."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = (
            f"GET /v1/edits/{edit_id}/events HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        try:
            await reader.readuntil(b"event: status")
        except asyncio.IncompleteReadError:
            writer.close()
            return None
        return cls(reader, writer)

    async def ends_with_done(self) -> bool:
        """Whether `done` comes, and then the end of the answer. Every event id comes once."""
        text = (await self.reader.read(-1)).decode()
        self.writer.close()
        ids = [line for line in text.splitlines() if line.startswith("id: ")]
        return "event: done" in text and len(ids) == len(set(ids))


async def measure(url: str, pid: int, redis: Redis, seconds: float, count: int = STREAMS) -> dict[str, Any]:
    service, repository = Service(pid, redis), EditRepository(redis, 86_400)
    keys = [ApiKeys(redis).create(f"benchmark {i}") for i in range(math.ceil(count / STREAMS_PER_KEY))]
    tokens = [token for token, _ in keys for _ in range(STREAMS_PER_KEY)][:count]
    owners = [key.owner for _, key in keys for _ in range(STREAMS_PER_KEY)][:count]
    headers = {"Authorization": f"Bearer {tokens[0]}"}
    answer = httpx.post(f"{url}/v1/edits", files={"image": photo(64)}, data=FORM, headers=headers)
    record = repository.get(answer.raise_for_status().json()["id"])
    assert record is not None
    edits = [record.submission.model_copy(update={"id": new_edit_id(), "owner": owner}) for owner in owners]
    for edit in edits:
        repository.create(edit)
    found: dict[str, Any] = {"streams": count, "without": await service.watched(seconds)}
    listeners: list[Listener] = []
    begun = time.monotonic()
    for i in range(0, count, 50):
        opening = (Listener.open(url, edits[k].id, tokens[k]) for k in range(i, min(i + 50, count)))
        listeners += filter(None, await asyncio.gather(*opening))
    found |= {"opened": len(listeners), "opened_in_s": round(time.monotonic() - begun, 1)}
    found["waiting"] = [await service.watched(seconds) for _ in range(3)]
    found["reporting"] = await _reporting(service, repository, [edit.id for edit in edits[:REPORTS]], seconds)
    ends = asyncio.gather(*(listener.ends_with_done() for listener in listeners))
    await asyncio.to_thread(_end_all, repository, [edit.id for edit in edits])
    found["heard_the_end"] = sum(await asyncio.wait_for(ends, 120))
    found["afterwards"] = await service.watched(seconds)
    return found


async def _reporting(
    service: Service, repository: EditRepository, edit_ids: Sequence[str], seconds: float
) -> dict[str, float]:
    """Each of these edits runs and reports a step a second."""
    attempts = {edit_id: repository.start(edit_id) or 0 for edit_id in edit_ids}
    watched = asyncio.create_task(service.watched(seconds))
    step = 0
    while not watched.done():
        step += 1
        progress = Progress(step=step, steps=1000, stage="denoising")
        reports = [Report(edit_id, attempt, progress) for edit_id, attempt in attempts.items()]
        begun = time.monotonic()
        for i in range(0, len(reports), 20):
            await asyncio.to_thread(repository.report, reports[i : i + 20])
            await asyncio.sleep(max(0.0, begun + (i + 20) / len(reports) - time.monotonic()))
    return await watched


def _end_all(repository: EditRepository, edit_ids: Sequence[str]) -> None:
    for edit_id in edit_ids:
        repository.commit(edit_id, None, Outcome.canceled())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--streams", type=int, default=STREAMS)
    args = parser.parse_args()
    os.environ |= {"FOI_AUTH": "keys"}
    with (
        tempfile.TemporaryDirectory() as folder,
        service_on_one_core(Path(folder)) as (url, pid, redis_url),
        connect(redis_url, decode=True) as redis,
    ):
        found = asyncio.run(measure(url, pid, redis, args.seconds, args.streams))
    json.dump({"machine": describe(), **found}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
