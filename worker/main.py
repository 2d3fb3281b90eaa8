"""`python -m worker`: loads the model once, warms it up, takes edits until SIGTERM, and finishes the running one."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import uuid
from collections.abc import Callable
from functools import partial
from threading import Event, Thread

from foi_core.errors import UnsupportedCheckpoint
from jobs import logs, presence
from jobs.blobs import BlobStore
from jobs.connection import RedisError, connect
from jobs.queue import RUN_EDIT
from jobs.redis_server import RedisUnavailableError, running_redis
from jobs.repository import EditRepository
from jobs.settings import Settings
from worker.reaper import FailureHandler, Reaper, Sweeper
from worker.rq_worker import EditWorker
from worker.task import Engine, run_edit

THREADS = 1
EXIT_MODEL = 3
"""The model cannot be used: starting again would not help."""

log = logs.get_logger(__name__)


class Housekeeping:
    """A thread that says once a second that the worker is there, and helps the edits of those that no longer are."""

    def __init__(self, name: str, settings: Settings, url: str, blobs: BlobStore) -> None:
        self._redis = connect(url, decode=True)
        repository = EditRepository(self._redis, settings.retention_s)
        self._presence = presence.WorkerPresence(name=name, state="starting", model=settings.model)
        self._reaper = Reaper(connect(url), repository)
        self._sweeper = Sweeper(repository, blobs)
        self._done = Event()
        self._thread = Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, state: presence.State) -> None:
        """Published at once, and from then on."""
        self._presence = self._presence.model_copy(update={"state": state})
        self._publish()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        try:
            presence.withdraw(self._redis, self._presence.name)
        except RedisError as error:
            log.warning("presence not withdrawn", reason=str(error))

    def _publish(self) -> None:
        try:
            presence.publish(self._redis, self._presence)
        except RedisError as error:
            log.warning("presence not published", reason=str(error))

    def _run(self) -> None:
        while True:
            self._publish()
            try:
                self._reaper.tick()
                self._sweeper.tick()
            except RedisError as error:
                log.warning("reaper skipped", reason=str(error))
            if self._done.wait(1):
                return


def main() -> int:
    """Exit status 0 after SIGTERM, 3 for a model that cannot be used, 1 for anything else."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument(
        "--name", default=f"worker-{os.getpid()}-{uuid.uuid4().hex[:8]}", help="unique, never used before"
    )
    name = parser.parse_args().name
    settings = Settings()
    logs.configure(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # nothing is running yet
    try:
        with running_redis(settings) as redis:
            return work(settings, redis.url, name, partial(_warm_engine, settings))
    except RedisUnavailableError as error:
        print(f"foi: {error}", file=sys.stderr)
        return 1


def work(settings: Settings, url: str, name: str, load: Callable[[], Engine]) -> int:
    """Loads the engine, then takes edits until a signal comes or a thread dies."""
    blobs = BlobStore(settings.data_dir / "blobs")
    housekeeping = Housekeeping(name, settings, url, blobs)
    housekeeping.start()
    try:
        engine = load()
        repository = EditRepository(connect(url, patient=True, decode=True), settings.retention_s)
        tasks = {RUN_EDIT: partial(run_edit, engine, repository, blobs)}
        on_failure = FailureHandler(repository)
        workers = [EditWorker(f"{name}-{i}", connect(url, patient=True), tasks, on_failure) for i in range(THREADS)]
        return _serve(workers, housekeeping)
    except UnsupportedCheckpoint as error:
        print(f"foi: the model {settings.model!r} cannot be used: {error}", file=sys.stderr)
        return EXIT_MODEL
    finally:
        housekeeping.stop()


def _warm_engine(settings: Settings) -> Engine:
    from foi_core.engine import Engine as FoiEngine  # here, because torch takes seconds: by now we are seen as starting

    engine = FoiEngine.load(settings.model, settings.device, settings.dtype)
    engine.warm_up()
    return engine


def _serve(workers: list[EditWorker], housekeeping: Housekeeping) -> int:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threads = [Thread(target=worker.work, args=(False, "WARNING"), name=worker.name) for worker in workers]
    for thread in threads:
        thread.start()
    housekeeping.say("ready")
    log.info("worker ready", threads=len(threads))
    while not stop.wait(0.2) and all(thread.is_alive() for thread in threads):
        pass
    housekeeping.say("draining")
    log.info("worker draining")
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join()
    return 0 if stop.is_set() else 1
