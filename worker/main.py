"""`python -m worker`: loads the model once, warms it up, takes edits until SIGTERM, and finishes those that it has."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from foi_core.errors import UnsupportedCheckpoint
from jobs import logs, metrics, presence
from jobs.blobs import BlobStore
from jobs.connection import RedisError, connect
from jobs.object_store import StoreSettingError
from jobs.redis_server import RedisUnavailableError, running_redis
from jobs.repository import EditRepository
from jobs.settings import Settings
from worker.reaper import Reaper
from worker.reporter import Reporter
from worker.room import HandedBack, Room
from worker.rq_worker import EditWorker
from worker.sweeper import Sweeper
from worker.task import EditTask

if TYPE_CHECKING:  # it imports torch
    from foi_core.batching import BatchingEngine

OnChange = Callable[[], None]
PREPARED = 2
"""Edits in the engine beside those in flight: the next are encoded while others denoise, the last decoded."""
STORING = 2
"""Threads for each place in the engine: an edit whose files are being stored holds a thread and no place."""
EXIT_MODEL = 3
"""The model cannot be used: starting again would not help."""
EXIT_ENGINE = 4
"""The device failed for good, or hung: a new process may do better."""
POLL_S = 0.2
HAND_BACK_S = 5

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
            self._publish()
            self._count()
            try:
                self._reaper.tick()
                self._sweeper.tick()
            except RedisError as error:
                log.warning("reaper skipped", reason=str(error))
            if self._done.wait(1):
                return


class Crew:
    """The engine and the RQ threads in front of it."""

    def __init__(
        self, engine: BatchingEngine, reporter: Reporter, name: str, settings: Settings, url: str, blobs: BlobStore
    ) -> None:
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
        return self._engine.busy_for() > self._hang_s

    @property
    def works(self) -> bool:
        return self._engine.works and all(thread.is_alive() for thread in self._threads)

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


def main() -> int:
    """Exit status 0 after SIGTERM, 3 for a model that cannot be used, 4 for a device that failed, 1 for anything
    else."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument(
        "--name", default=f"worker-{os.getpid()}-{uuid.uuid4().hex[:8]}", help="unique, never used before"
    )
    parser.add_argument("--index", type=int, default=0, help="which of FOI_WORKERS it is: chooses among several GPUs")
    arguments = parser.parse_args()
    settings = Settings()
    logs.configure(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # nothing is running yet
    try:
        with running_redis(settings) as redis:
            return work(settings, redis.url, arguments.name, partial(_warm_engine, settings, arguments.index))
    except (RedisUnavailableError, StoreSettingError) as error:
        print(f"foi: {error}", file=sys.stderr)
        return 1


def work(settings: Settings, url: str, name: str, load: Callable[[OnChange], BatchingEngine]) -> int:
    """Loads the engine, then takes edits until a signal comes, the engine fails or a thread dies."""
    blobs = BlobStore.of(settings)
    housekeeping = Housekeeping(name, settings, url, blobs)
    housekeeping.start()
    reporter = Reporter(EditRepository(connect(url, decode=True), settings.retention_s))
    try:
        engine = load(reporter.changed)
        housekeeping.loaded(engine, _revision(settings.model))
        return _serve(Crew(engine, reporter, name, settings, url, blobs), housekeeping, settings.drain_s)
    except UnsupportedCheckpoint as error:
        print(f"foi: the model {settings.model!r} cannot be used: {error}", file=sys.stderr)
        return EXIT_MODEL
    finally:
        reporter.close()
        housekeeping.stop()


def _warm_engine(settings: Settings, index: int, on_change: OnChange) -> BatchingEngine:
    import torch  # here, because it takes seconds: by now we are seen as starting

    from foi_core.batching import BatchingEngine, Capacity
    from foi_core.engine import Engine

    device = settings.device
    if device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        device = f"cuda:{index % torch.cuda.device_count()}"
    if device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // settings.workers))
    engine = Engine.load(settings.model, device, settings.dtype)
    return BatchingEngine(engine, Capacity.measured(engine, settings.max_in_flight), on_change)


def _revision(model: str) -> str | None:
    """Which version was loaded, whatever it is called: a model's commit on the hub, or a hash of a folder's weights."""
    folder = Path(__file__).parent.parent / "demo" / "model" if model == "demo" else Path(model)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model, "model_index.json")
        return Path(found).parent.name[:12] if isinstance(found, str) else None
    weights = hashlib.sha256()
    for part in ("text_encoder", "unet", "vae"):
        for path in sorted((folder / part).glob("*.safetensors")):
            with path.open("rb") as file:
                weights.update(hashlib.file_digest(file, "sha256").digest())
    return weights.hexdigest()[:12]


def _serve(crew: Crew, housekeeping: Housekeeping, drain_s: float) -> int:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    crew.start()
    housekeeping.say("ready")
    log.info("worker ready")
    while not stop.wait(POLL_S) and crew.works:
        if crew.hangs:
            # Threads that hang cannot be ended. The supervisor hands the edits back and starts another process.
            log.error("the engine hangs: this process ends")
            os._exit(EXIT_ENGINE)
    housekeeping.say("draining")
    log.info("worker draining")
    if not crew.drain(drain_s if crew.works else 0):
        log.error("an edit could not be stopped: this process ends without it")
        os._exit(EXIT_ENGINE)
    return 0 if stop.is_set() else EXIT_ENGINE
