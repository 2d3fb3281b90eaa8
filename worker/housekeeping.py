"""What a worker does beside its edits: it says that it is there, counts, and helps the edits of those that are gone."""

from __future__ import annotations

from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING

from jobs import logs, metrics, presence
from jobs.blobs import BlobStore
from jobs.connection import RedisError, connect
from jobs.repository import EditRepository
from jobs.settings import Settings
from worker.reaper import Reaper
from worker.sweeper import Sweeper

if TYPE_CHECKING:  # it imports torch
    from foi_core.batching import BatchingEngine

log = logs.get_logger(__name__)


class Housekeeping:
    """A thread that says once a second that the worker is there and what it has stepped, and helps the edits of those
    that no longer are there."""

    def __init__(self, name: str, settings: Settings, url: str, blobs: BlobStore) -> None:
        self._redis = connect(url, decode=True)
        repository = EditRepository(self._redis, settings.retention_s)
        self._presence = presence.WorkerPresence(
            name=name, state="starting", model=settings.model, places=settings.max_in_flight
        )
        self._reaper = Reaper(connect(url), repository, settings.max_deaths)
        self._sweeper = Sweeper(repository, blobs)
        self._engine: BatchingEngine | None = None
        self._tally = metrics.Tally()
        blobs.on_error = partial(self._tally.add, {metrics.STORE_ERRORS: 1})
        self._done = Event()
        self._thread = Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def loaded(self, engine: BatchingEngine, revision: str | None) -> None:
        """What it steps is counted from now on."""
        self._presence = self._presence.model_copy(update={"revision": revision})
        self._engine = engine

    def say(self, state: presence.State) -> None:
        """Published at once, and from then on."""
        self._presence = self._presence.model_copy(update={"state": state})
        self._publish()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        self._count()
        try:
            presence.withdraw(self._redis, self._presence.name)
        except RedisError as error:
            log.warning("presence not withdrawn", reason=str(error))

    def _publish(self) -> None:
        try:
            presence.publish(self._redis, self._presence)
        except RedisError as error:
            log.warning("presence not published", reason=str(error))

    def _count(self) -> None:
        if self._engine is not None:
            steps, edits, seconds = self._engine.stepped
            self._tally.follow({metrics.STEPS: steps, metrics.BATCH_EDITS: edits, metrics.STEP_SECONDS: seconds})
        try:
            self._tally.flush(self._redis)
        except RedisError as error:
            log.warning("metrics not written", reason=str(error))

    def _run(self) -> None:
        while True:
            for work in (self._publish, self._count, self._reaper.tick, self._sweeper.tick):
                try:
                    work()
                except RedisError as error:
                    log.warning("housekeeping waits for redis", reason=str(error))
                except Exception:
                    log.exception("housekeeping: an unexpected error")
            if self._done.wait(1):
                return
