"""The engine and the RQ threads in front of it."""

from __future__ import annotations

import time
from threading import Thread
from typing import TYPE_CHECKING

from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.processes import map_large_blocks
from jobs.repository import EditRepository
from jobs.settings import Settings
from worker.reporter import Reporter
from worker.room import HandedBack, Room
from worker.rq_worker import EditWorker
from worker.task import EditTask

if TYPE_CHECKING:  # it imports torch
    from foi_core.batching import BatchingEngine

PREPARED = 2
"""Edits in the engine beside those in flight: the next are encoded while others denoise, the last decoded."""
STORING = 2
"""Threads for each place in the engine: an edit whose files are being stored holds a thread and no place."""
HAND_BACK_S = 5
MAPPED_BYTES = 8 * 2**20
"""Pictures as large as callers send them are larger; the tensors of a step are smaller, and stay with the heap."""


class Crew:
    """The engine and the RQ threads in front of it."""

    def __init__(
        self, engine: BatchingEngine, reporter: Reporter, name: str, settings: Settings, url: str, blobs: BlobStore
    ) -> None:
        map_large_blocks(MAPPED_BYTES)
        self._engine, self._reporter, self._hang_s = engine, reporter, settings.hang_s
        self._room = Room(settings.max_in_flight + PREPARED)
        repository = EditRepository(connect(url, patient=True, decode=True), settings.retention_s)
        task = EditTask(engine, reporter, repository, blobs, settings.edit_timeout_s, settings.max_deaths)
        self._workers = [
            EditWorker(f"{name}-{i}", connect(url, patient=True), task, self._room, lambda: not self.hangs)
            for i in range(STORING * (settings.max_in_flight + PREPARED))
        ]
        self._threads = [
            Thread(target=worker.work, args=(False, "WARNING"), name=worker.name, daemon=True)
            for worker in self._workers
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def hangs(self) -> bool:
        return self._engine.hangs(self._hang_s)

    @property
    def works(self) -> bool:
        return self._engine.works and self._reporter.works and all(thread.is_alive() for thread in self._threads)

    def drain(self, seconds: float) -> bool:
        """Takes nothing more, and waits for what it has; what is not done in time is handed back. Whether all threads
        ended."""
        for worker in self._workers:
            worker.stop()
        self._room.close()
        self._join(seconds)
        self._reporter.stop_all(HandedBack("the worker stops"))
        if self._join(HAND_BACK_S):
            return True
        if self._engine.works:
            self._reporter.hand_back()
        return False

    def _join(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
