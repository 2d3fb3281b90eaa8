"""Queued edits with their pictures, and RQ workers in threads."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Thread

import pytest

from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.queue import RUN_EDIT, EditQueue
from jobs.records import INPUT_FILE, EditRecord
from jobs.repository import EditRepository
from service.images import to_png
from tests.support import picture, submission
from worker.reaper import FailureHandler
from worker.rq_worker import EditWorker
from worker.task import Engine, run_edit


@pytest.fixture
def submit(repository: EditRepository, blobs: BlobStore, queue: EditQueue) -> Callable[..., str]:
    """Stores and queues an edit as the service does; returns its id."""

    def take_in(**changes: object) -> str:
        new = submission(**changes)
        stored = blobs.put_input(new.id, INPUT_FILE, to_png(picture()), "image/png")
        repository.create(new.model_copy(update={"files": {INPUT_FILE: stored}}))
        queue.enqueue(new.id)
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
def work(redis_url: str, repository: EditRepository, blobs: BlobStore) -> Iterator[Callable[[Engine], EditWorker]]:
    """Starts an RQ worker in a thread; all of them are stopped at the end."""
    started: list[tuple[EditWorker, Thread]] = []

    def start(engine: Engine) -> EditWorker:
        tasks: Mapping[str, Callable[..., object]] = {RUN_EDIT: partial(run_edit, engine, repository, blobs)}
        worker = EditWorker(f"test-{uuid.uuid4().hex}", connect(redis_url), tasks, FailureHandler(repository))
        thread = Thread(target=worker.work, args=(False, "WARNING"), name=worker.name)
        thread.start()
        started.append((worker, thread))
        return worker

    yield start
    for worker, _ in started:
        worker.stop()
    for worker, thread in started:
        thread.join(20)
        assert not thread.is_alive()
        worker.connection.close()
