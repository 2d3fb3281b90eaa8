"""One real Redis for the whole run, empty at the start of each test; everything else is new for each test."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.queue import EditQueue
from jobs.redis_server import EmbeddedRedis
from jobs.repository import EditRepository
from jobs.settings import Settings


def pytest_configure() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and processes of the tests would inherit it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason why tests were skipped, with their number."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def raw_redis(redis_url: str) -> Iterator[Redis]:
    """As RQ wants it: answers bytes."""
    client = connect(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def redis(redis_url: str, raw_redis: Redis) -> Iterator[Redis]:
    """As our own code wants it: answers text."""
    while raw_redis.dbsize():
        raw_redis.flushall()  # something that the test before had begun, like an open stream, has just ended
    client = connect(redis_url, decode=True)
    yield client
    client.close()


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=redis_url)


@pytest.fixture
def repository(redis: Redis, settings: Settings) -> EditRepository:
    return EditRepository(redis, settings.retention_s)


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    return BlobStore(settings.data_dir / "blobs")


@pytest.fixture
def queue(raw_redis: Redis) -> EditQueue:
    return EditQueue(raw_redis)
