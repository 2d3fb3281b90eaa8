"""Taking an edit in. 4xx are decided before anything is stored; then bytes -> store, record -> Redis, id -> queue."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

import structlog
from PIL import Image

from foi_core.spec import SEED_LIMIT
from jobs.blobs import BlobStore
from jobs.connection import RedisError
from jobs.logs import get_logger
from jobs.queue import EditQueue
from jobs.records import (
    INPUT_FILE,
    EditInput,
    EditRecord,
    Instruction,
    Outcome,
    StoredFile,
    Submission,
    new_edit_id,
    now,
)
from jobs.repository import EditRepository
from jobs.settings import Settings
from service import images, parsing
from service.forms import Form
from service.problems import Problem

log = get_logger(__name__)


@dataclass(frozen=True)
class Intake:
    """What a submit needs."""

    settings: Settings
    repository: EditRepository
    blobs: BlobStore
    queue: EditQueue

    def submit(self, form: Form, *, masks_only: bool = False) -> str:
        """Returns the id of the queued edit, or raises the Problem; blocks on decoding and on Redis."""
        request = parsing.parse(form, masks_only=masks_only)
        picture = images.read_picture(form.files["image"].file, self.settings.max_pixels)
        masks = {
            name: images.read_mask(form.files[name].file, picture.size, self.settings.max_pixels, name)
            for name in dict.fromkeys(request.masks)
            if name is not None
        }
        if self.queue.length() >= self.settings.max_queue:
            raise Problem("queue-full", f"{self.settings.max_queue} edits are waiting; try again later")
        edit_id = new_edit_id()
        with structlog.contextvars.bound_contextvars(edit_id=edit_id):
            self._take_in(edit_id, request, picture, masks)
            log.info("edit queued", instructions=len(request.masks), size=picture.size)
        return edit_id

    def _take_in(
        self, edit_id: str, request: parsing.Request, picture: Image.Image, masks: dict[str, Image.Image]
    ) -> None:
        created_at = now()
        try:
            files = {INPUT_FILE: self._store(edit_id, INPUT_FILE, picture)}
            names = {part: f"input-mask-{i}.png" for i, part in enumerate(sorted(masks), 1)}
            files |= {names[part]: self._store(edit_id, names[part], mask) for part, mask in masks.items()}
            submission = Submission(
                id=edit_id,
                created_at=created_at,
                input=_edit_input(request, names, picture.size),
                metadata=request.metadata,
                files=files,
                priority=request.priority,
                deadline_at=created_at + timedelta(seconds=request.deadline_s) if request.deadline_s else None,
                previews=request.previews,
            )
            self.repository.create(submission)
            self._enqueue(submission)
        except Exception:
            self.blobs.delete_edit(edit_id)
            raise

    def cancel(self, record: EditRecord) -> None:
        """Idempotent; an edit that has ended stays as it is."""
        if self.repository.cancel(record.submission.id) == "canceled":
            self.queue.remove(record.submission.id, record.submission.priority)

    def _enqueue(self, submission: Submission) -> None:
        try:
            self.queue.enqueue(submission.id, submission.priority)
        except RedisError:
            failure = Outcome.failed(
                "unavailable", "The edit could not be queued", "the queue did not answer at submit"
            )
            self.repository.commit(submission.id, None, failure)
            raise

    def _store(self, edit_id: str, name: str, image: Image.Image) -> StoredFile:
        return self.blobs.put_input(edit_id, name, images.to_png(image), "image/png")


def _edit_input(request: parsing.Request, mask_names: dict[str, str], size: tuple[int, int]) -> EditInput:
    """The seed is drawn here, so that it is echoed from the start and a retry repeats it."""
    seed = request.spec.seed
    instructions = [
        Instruction(
            text=part.text,
            keyword=part.keyword,
            keyword_source="given" if part.keyword else None,
            intensity=part.intensity,
            mask=mask_names[mask] if mask else None,
        )
        for part, mask in zip(request.spec.instructions, request.masks, strict=True)
    ]
    return EditInput.from_spec(
        request.spec,
        instructions,
        seed=secrets.randbelow(SEED_LIMIT) if seed is None else seed,
        output_format=request.output_format,
        width=size[0],
        height=size[1],
    )
