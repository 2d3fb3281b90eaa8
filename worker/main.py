"""`python -m worker`: loads the model once, warms it up, takes edits until SIGTERM, and finishes those that it has."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from jobs import logs
from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.object_store import StoreSettingError
from jobs.redis_server import RedisUnavailableError, running_redis
from jobs.repository import EditRepository
from jobs.settings import Settings
from worker.crew import Crew
from worker.housekeeping import Housekeeping
from worker.loading import UnusableModelError, load_engine, warm_up
from worker.reporter import Reporter

if TYPE_CHECKING:  # it imports torch
    from foi_core.batching import BatchingEngine

OnChange = Callable[[], None]
EXIT_MODEL = 3
"""The model cannot be used: starting again would not help."""
EXIT_ENGINE = 4
"""The device failed for good, or hung: a new process may do better."""
POLL_S = 0.2

log = logs.get_logger(__name__)


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
        housekeeping.loaded(engine, _revision(settings.model, settings.model_revision))
        return _serve(Crew(engine, reporter, name, settings, url, blobs), housekeeping, settings.drain_s)
    except UnusableModelError as error:
        print(f"foi: {error}", file=sys.stderr)
        return EXIT_MODEL
    finally:
        reporter.close()
        housekeeping.stop()


def _warm_engine(settings: Settings, index: int, on_change: OnChange) -> BatchingEngine:
    import torch  # here, because it takes seconds: by now we are seen as starting

    from foi_core.batching import BatchingEngine

    device = settings.device
    if device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        device = f"cuda:{index % torch.cuda.device_count()}"
    if device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // settings.workers))
    engine = load_engine(settings, device)
    return BatchingEngine(engine, warm_up(settings, engine), on_change)


def _revision(model: str, asked: str | None) -> str:
    """Which version was loaded, whatever it is called: a model's commit on the hub, or a hash of a folder's weights."""
    folder = Path(__file__).parent.parent / "demo" / "model" if model == "demo" else Path(model)
    if not folder.is_dir():
        from foi_core import hub  # here, because it takes a moment, as above

        return hub.cached_commit(model, asked)
    weights = hashlib.sha256()
    for part in ("text_encoder", "unet", "vae"):
        for path in sorted(path for path in (folder / part).iterdir() if path.suffix in (".safetensors", ".bin")):
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
