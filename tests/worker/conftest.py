"""Queued edits with their pictures, and RQ workers in threads."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from foi_core.batching import BatchingEngine
from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.pictures import to_png
from jobs.queue import EditQueue
from jobs.records import UPLOAD, EditRecord
from jobs.repository import EditRepository
from tests.support import FakeEngine, picture, submission
from worker.reporter import Reporter
from worker.room import Room
from worker.rq_worker import EditWorker
from worker.task import EditTask


@pytest.fixture
def submit(repository: EditRepository, blobs: BlobStore, queue: EditQueue) -> Callable[..., str]:
    """Stores and queues an edit as the service does; returns its id."""

    def take_in(**changes: object) -> str:
        new = submission(**changes)
        upload = blobs.put_input(new.id, UPLOAD, to_png(picture()), "image/png")
        repository.create(new.model_copy(update={"upload": upload}))
        queue.enqueue(new.id, new.priority)
        return new.id

    return take_in


@pytest.fixture
def look(repository: EditRepository) -> Callable[[str], EditRecord]:
    def get(edit_id: str) -> EditRecord:
        record = repository.get(edit_id)
        assert record is not None
        return record

    return get


@pytest.fixture
def work(redis_url: str, repository: EditRepository, blobs: BlobStore) -> Iterator[Callable[..., EditWorker]]:
    """Starts an RQ worker in a thread; all of them are stopped at the end."""
    started: list[tuple[EditWorker, Thread, BatchingEngine]] = []
    reporter = Reporter(repository)

    def start(engine: FakeEngine, store: BlobStore = blobs, threads: int = 1) -> EditWorker:
        batching, room = engine.batching(on_change=reporter.changed), Room(1)
        task = EditTask(batching, reporter, repository, store, edit_timeout_s=60, max_deaths=2)
        for _ in range(threads):
            worker = EditWorker(f"test-{uuid.uuid4().hex}", connect(redis_url), task, room)
            thread = Thread(target=worker.work, args=(False, "WARNING"), name=worker.name)
            thread.start()
            started.append((worker, thread, batching))
        return worker

    yield start
    for worker, *_ in started:
        worker.stop()
    for worker, thread, batching in started:
        thread.join(20)
        assert not thread.is_alive()
        worker.connection.close()
        batching.close()
    reporter.close()
