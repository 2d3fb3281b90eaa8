"""The real service, a client of it, and a worker without a model that runs what is queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread

import pytest
from redis import Redis

from foi_client import Client, patience
from jobs.blobs import BlobStore
from jobs.repository import EditRepository
from jobs.settings import Settings
from tests.client.relay import Relay, relaying
from tests.service.conftest import seen_a_moment_ago, serving
from tests.support import FakeEngine, run_edit

Editing = Callable[..., AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.02)


@pytest.fixture(scope="session")
def client_settings(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("client"), redis_url=redis_url)


@pytest.fixture(scope="session")
def service(client_settings: Settings, redis_url: str) -> Iterator[str]:
    with serving(client_settings, redis_url) as url:
        yield url


@pytest.fixture
def address(service: str, redis: Redis) -> str:
    """Of the service, which has seen a worker."""
    seen_a_moment_ago(redis)
    return service


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=20, retry_for=20) as client:
        yield client


@pytest.fixture
def relay(address: str) -> Iterator[Relay]:
    with relaying(address) as relay:
        yield relay


@pytest.fixture
def far_client(relay: Relay) -> Iterator[Client]:
    """One behind the relay."""
    with Client(relay.url, timeout=20, retry_for=20) as client:
        yield client


@pytest.fixture
def stored_files(client_settings: Settings) -> BlobStore:
    return BlobStore(client_settings.data_dir / "blobs")


@pytest.fixture
def run(repository: EditRepository, stored_files: BlobStore) -> Callable[..., None]:
    """Runs one edit to its end."""

    def run_one(edit_id: str, engine: FakeEngine | None = None) -> None:
        run_edit(engine or FakeEngine(), repository, stored_files, edit_id)

    return run_one


@pytest.fixture
def editing(redis: Redis, repository: EditRepository, run: Callable[..., None]) -> Editing:
    """While the block runs, every edit that is queued is run."""

    @contextmanager
    def worker(engine: FakeEngine | None = None) -> Iterator[None]:
        over = Event()

        def work() -> None:
            while not over.wait(0.02):
                for key in redis.keys("foi:edit:*"):
                    record = repository.get(key.removeprefix("foi:edit:"))
                    if record is not None and record.status == "queued":
                        run(record.submission.id, engine)

        thread = Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return worker
