"""Runs one edit: everything it needs comes in as arguments, everything that it does ends in one commit."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from PIL import Image
from rq.timeouts import JobTimeoutException

from foi_core.errors import EditCanceled, InvalidParameter
from foi_core.result import EditResult
from foi_core.result import Progress as EngineProgress
from foi_core.spec import EditSpec
from jobs.blobs import BlobStore
from jobs.connection import RedisError
from jobs.logs import get_logger
from jobs.records import INPUT_FILE, EditRecord, Outcome, Progress
from jobs.repository import EditRepository
from worker.files import Files, succeeded

PROGRESS_INTERVAL_S = 0.2

log = get_logger(__name__)


class Engine(Protocol):
    """What a task needs of `foi_core.engine.Engine`."""

    def edit(
        self, image: Image.Image, spec: EditSpec, on_progress: Callable[[EngineProgress], None] | None = None
    ) -> EditResult: ...


def run_edit(engine: Engine, repository: EditRepository, blobs: BlobStore, edit_id: str) -> None:
    """May be called again for the same edit, also by two workers at once: one outcome stays.

    Raises only where Redis fails; then RQ tries again. Everything else is the edit's own failure, told in its record.
    """
    with structlog.contextvars.bound_contextvars(edit_id=edit_id):
        attempt = repository.start(edit_id)
        record = repository.get(edit_id)
        if attempt is None or record is None:
            log.info("nothing to do: the edit has ended or expired")
            return
        log.info("edit started", attempt=attempt)
        try:
            outcome = _run(engine, blobs, record, attempt, ProgressWriter(repository, edit_id, attempt))
        except EditCanceled:
            log.warning("edit given up: another worker has it, or it has ended", attempt=attempt)
            return
        if repository.commit(edit_id, attempt, outcome):
            log.info("edit ended", status=outcome.status, error=outcome.error.detail if outcome.error else None)
        else:
            log.warning("outcome refused: another worker has the edit, or it has ended", attempt=attempt)


class ProgressWriter:
    """Passes the engine's progress on, at most five times a second. Ends the edit when another attempt has it."""

    def __init__(self, repository: EditRepository, edit_id: str, attempt: int) -> None:
        self._repository, self._edit_id, self._attempt = repository, edit_id, attempt
        self._stage: str | None = None
        self._next = 0.0

    def __call__(self, progress: EngineProgress) -> None:
        if progress.stage == self._stage and time.monotonic() < self._next:
            return
        self._stage, self._next = progress.stage, time.monotonic() + PROGRESS_INTERVAL_S
        shown = Progress(step=progress.step, steps=progress.steps, stage=progress.stage)
        try:
            current = self._repository.progress(self._edit_id, self._attempt, shown)
        except RedisError as error:
            log.warning("progress not written", reason=str(error))
            return
        if not current:
            raise EditCanceled("the attempt is no longer the newest")


def _run(engine: Engine, blobs: BlobStore, record: EditRecord, attempt: int, on_progress: ProgressWriter) -> Outcome:
    try:
        picture, spec = _load(blobs, record)
        result = engine.edit(picture, spec, on_progress)
        return succeeded(record, picture, result, Files(blobs, record.submission.id, attempt))
    except EditCanceled:
        raise
    except InvalidParameter as error:
        return Outcome.failed("invalid-parameter", "A field is not allowed", str(error))
    except JobTimeoutException:
        return Outcome.failed(
            "deadline-exceeded", "The edit took too long", "it was stopped at the service's time limit"
        )
    except Exception as error:
        log.exception("edit failed unexpectedly")
        if type(error).__name__ == "OutOfMemoryError":  # torch's; this module does not import torch
            hint = "the device has too little memory for this picture; send a smaller one, or fewer sub-instructions"
            return Outcome.failed("out-of-memory", "Out of memory", hint)
        detail = f"an unexpected error ({type(error).__name__}); it is in the log under the edit's id"
        return Outcome.failed("internal", "Something went wrong on our side", detail)


def _load(blobs: BlobStore, record: EditRecord) -> tuple[Image.Image, EditSpec]:
    def opened(name: str) -> Image.Image:
        return Image.open(io.BytesIO(blobs.get(record.submission.files[name].key)))

    masks = [opened(part.mask) if part.mask else None for part in record.input.instructions]
    return opened(INPUT_FILE), record.input.to_spec(masks)
