"""Runs one edit: everything it needs comes in as arguments, everything that it does ends in one commit."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
from PIL import Image

from foi_core.errors import (
    DeadlineExceeded,
    EditCanceled,
    EngineDied,
    InvalidParameter,
    ModelFailure,
    OutOfMemory,
    UnsafeResult,
)
from foi_core.spec import EditSpec
from jobs import pace, pictures
from jobs.blobs import BlobStore
from jobs.logs import get_logger
from jobs.queue import PRIORITIES
from jobs.records import EditRecord, Outcome, Safety
from jobs.repository import EditRepository
from worker.files import Files, succeeded
from worker.patience import PatientStore
from worker.pixels import SMALL, Pixels
from worker.reporter import AttemptLost, Reporter, Watched
from worker.room import HandedBack, Place

if TYPE_CHECKING:  # they import torch
    from foi_core.batching import BatchingEngine
    from foi_core.finishing import Decoded


log = get_logger(__name__)


@dataclass(frozen=True)
class EditTask:
    """What a thread of the worker does with an edit's id."""

    engine: BatchingEngine
    reporter: Reporter
    repository: EditRepository
    blobs: BlobStore
    edit_timeout_s: int
    max_deaths: int
    pixels: Pixels = field(default_factory=Pixels)

    def __call__(self, edit_id: str, place: Place) -> None:
        """May be called again for the same edit, also by two workers at once: one outcome stays. `place` is left as
        soon as the engine is done.

        Raises HandedBack and EngineDied where another worker should run it, and where Redis fails. Everything else is
        the edit's own failure, told in its record.
        """
        with structlog.contextvars.bound_contextvars(edit_id=edit_id):
            record = self.repository.get(edit_id)
            if record is None or record.terminal:
                log.info("nothing to do: the edit has ended or expired")
                return
            with place.alone() if record.deaths else nullcontext():
                self._attempt(edit_id, place)

    def _attempt(self, edit_id: str, place: Place) -> None:
        attempt = self.repository.start(edit_id)
        record = self.repository.get(edit_id)
        if attempt is None or record is None:
            log.info("nothing to do: the edit has ended or expired")
            return
        log.info("edit started", attempt=attempt)
        try:
            outcome = self._outcome(record, attempt, place)
        except AttemptLost:
            log.warning("edit given up: another worker has it, or it has ended", attempt=attempt)
            return
        except (HandedBack, EngineDied) as error:
            # A device that dies may have died of this edit.
            self.repository.release(edit_id, attempt, blameless=isinstance(error, HandedBack))
            log.warning("edit handed back", attempt=attempt, reason=str(error))
            raise
        if self.repository.commit(edit_id, attempt, outcome.ended_at(self.repository.now())):
            log.info("edit ended", status=outcome.status, error=outcome.error.type if outcome.error else None)
            if outcome.metrics is not None and record.input.method != "masks":
                pace.remember(self.repository.redis, outcome.metrics.run_ms)
        else:
            log.warning("outcome refused: the edit was canceled, has ended, or is another worker's", attempt=attempt)
            self.blobs.delete_outputs(edit_id, attempt)

    def _outcome(self, record: EditRecord, attempt: int, place: Place) -> Outcome:
        if record.status == "canceling":
            return Outcome.canceled()
        if record.deaths > self.max_deaths:
            return worker_lost(record.deaths - 1)
        try:
            return self._edited(record, attempt, place)
        except (AttemptLost, HandedBack, EngineDied):
            raise
        except EditCanceled:
            return Outcome.canceled()
        except InvalidParameter as error:
            return Outcome.failed("invalid-parameter", "A field is not allowed", str(error))
        except ModelFailure as error:
            return Outcome.failed("internal", "The model failed", str(error))
        except UnsafeResult as error:
            return Outcome.failed("unsafe-result", "The result was withheld", str(error), Safety(flagged=True))
        except OutOfMemory as error:
            return Outcome.failed("out-of-memory", "Out of memory", str(error))
        except DeadlineExceeded as error:
            return Outcome.failed("deadline-exceeded", "The edit took too long", str(error))
        except Exception as error:
            if isinstance(error, FileNotFoundError) and self._is_over(record.submission.id):
                raise AttemptLost("the edit was deleted meanwhile") from None
            log.exception("edit failed unexpectedly")
            detail = f"an unexpected error ({type(error).__name__}); it is in the log under the edit's id"
            return Outcome.failed("internal", "Something went wrong on our side", detail)

    def _is_over(self, edit_id: str) -> bool:
        present = self.repository.get(edit_id)
        return present is None or present.terminal

    def _edited(self, record: EditRecord, attempt: int, place: Place) -> Outcome:
        store = PatientStore(self.blobs, place)
        store.check_writable()  # nothing is made that could not be stored
        given: _Given | _Prepared = _Given(store, record)
        with self.pixels.held(given.pixels, place):
            prepared, spec = self.engine.prepare(*given.load())
        if record.input.output_size == "model":
            given = _Prepared(prepared, spec)
        submission, left = record.submission, float(self.edit_timeout_s)
        if submission.deadline_at is not None:
            left = min(left, (submission.deadline_at - self.repository.now()).total_seconds())
        priority, deadline = PRIORITIES.index(submission.priority), time.monotonic() + left
        specs = [replace(spec, seed=seed) for seed in record.input.seeds]
        tickets = [self.engine.submit(prepared, one, priority=priority, deadline=deadline) for one in specs]
        look = partial(self.engine.preview, tickets[0]) if submission.previews else None
        running = Watched(submission.id, attempt, tickets, look)
        self.reporter.watch(running)
        try:
            decoded = running.results()
        finally:
            self.reporter.forget(submission.id)
            place.leave()
        with self.pixels.held(given.pixels):
            return _stored(record, given, decoded, Files(store, submission.id, attempt))


def worker_lost(deaths: int) -> Outcome:
    """The end of an edit under which too many workers died."""
    detail = f"{deaths} workers died while they ran the edit; it is not tried again, and others are not affected"
    return Outcome.failed("worker-lost", "The workers that ran the edit died", detail)


def _stored(record: EditRecord, given: _Given | _Prepared, decoded: Sequence[Decoded], files: Files) -> Outcome:
    """A function of its own, so that its pictures are gone when the next edit gets their room."""
    picture, spec = given.load()
    masks = [part.mask for part in spec.instructions]
    return succeeded(record, picture, (one.drawn(picture, masks) for one in decoded), files)


class _Given:
    """The picture and the masks as the caller sent them, read when they are worked on: a large picture takes no memory
    while it waits for the model."""

    def __init__(self, store: PatientStore, record: EditRecord) -> None:
        self.pixels = record.input.width * record.input.height
        self._store, self._record = store, record
        self._kept: tuple[Image.Image, EditSpec] | None = None

    def load(self) -> tuple[Image.Image, EditSpec]:
        """Raises HandedBack and FileNotFoundError, as the store does."""
        if self._kept is not None:
            return self._kept
        record, files = self._record, self._record.submission.files
        upload = io.BytesIO(self._store.get(record.submission.upload.key))
        masks = [self._mask(files[part.mask].key) if part.mask else None for part in record.input.instructions]
        loaded = pictures.read_picture(upload, max_pixels=self.pixels), record.input.to_spec(masks)
        if self.pixels <= SMALL:
            self._kept = loaded
        return loaded

    def _mask(self, key: str) -> Image.Image:
        return Image.open(io.BytesIO(self._store.get(key)))


@dataclass(frozen=True)
class _Prepared:
    """The picture and the masks at the model's size, where the caller wants the result to have it."""

    picture: Image.Image
    spec: EditSpec

    @property
    def pixels(self) -> int:
        return self.picture.width * self.picture.height

    def load(self) -> tuple[Image.Image, EditSpec]:
        return self.picture, self.spec
