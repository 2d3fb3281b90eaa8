"""The real application behind a real uvicorn on a real port, with small limits; only tests run edits."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest
from redis import Redis

from jobs import presence
from jobs.blobs import BlobStore
from jobs.settings import Settings
from service import metrics as service_metrics
from service.app import create_app
from service.server import Server
from tests.support import python, wait_until

service_metrics.FLUSH_S = 3600  # else what other requests have left is written between two looks of a test
LIMITS = {"max_body_bytes": 400_000, "max_pixels": 100_000, "max_queue": 5, "upload_timeout_s": 2}


@contextmanager
def serving(settings: Settings, url: str) -> Iterator[str]:
    """The address of a running service."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(create_app(settings, url))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="session")
def served_settings(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("service"), redis_url=redis_url, **LIMITS)


@pytest.fixture(scope="session")
def address(served_settings: Settings, redis_url: str) -> Iterator[str]:
    with serving(served_settings, redis_url) as url:
        yield url


@pytest.fixture(scope="session")
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as client:
        yield client


@pytest.fixture
def client(http: httpx.Client, redis: Redis) -> httpx.Client:
    assert redis.dbsize() == 0
    seen_a_moment_ago(redis)
    return http


def seen_a_moment_ago(redis: Redis) -> None:
    """A worker was there: edits are accepted, and wait."""
    presence.publish(redis, presence.WorkerPresence(name="seen", state="ready", model="none"))
    presence.withdraw(redis, "seen")


@pytest.fixture
def served_blobs(served_settings: Settings) -> BlobStore:
    return BlobStore(served_settings.data_dir / "blobs")


@pytest.fixture
def stored(redis: Redis, served_settings: Settings) -> Callable[[], set[str]]:
    """Everything that is stored anywhere: keys of Redis and files."""

    def look() -> set[str]:
        files = {str(path) for path in Path(served_settings.data_dir).rglob("*") if path.is_file()}
        return files | {f"{key}={redis.type(key)}" for key in redis.keys("*")}

    return look


class Service:
    """A real process of the HTTP service, which can be started again at the same address."""

    def __init__(self, settings: Settings, url: str, port: int) -> None:
        self.environment = {"FOI_REDIS_URL": url, "FOI_PORT": str(port), "FOI_DATA_DIR": str(settings.data_dir)}
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[str] | None = None
        self.log = ""

    def start(self) -> None:
        self.process = python("-m", "service", environment=self.environment, stderr=subprocess.PIPE)
        wait_until(self._lives)

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """The exit status; `log` is what it wrote."""
        assert self.process is not None
        _, self.log = self.process.communicate(timeout=20)
        return self.process.returncode

    def stop(self) -> str:
        """What it wrote."""
        self.terminate()
        assert self.ended() == 0
        return self.log

    def restart(self) -> None:
        self.stop()
        self.start()

    def _lives(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez").is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def service(settings: Settings, redis: Redis, redis_url: str) -> Iterator[Service]:
    seen_a_moment_ago(redis)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    service = Service(settings, redis_url, port)
    service.start()
    yield service
    if service.process is not None and service.process.poll() is None:
        service.process.kill()
        service.process.communicate()
