"""Taking an edit in. 4xx are decided before anything is stored; then bytes -> store, record -> Redis, id -> queue."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

import structlog
from PIL import Image

from foi_core.spec import SEED_LIMIT
from jobs import pace, presence
from jobs.blobs import BlobStore
from jobs.connection import RedisError
from jobs.idempotency import Claimed, IdempotencyKeys, InFlight, Mismatch
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
from jobs.repository import Claim, EditRepository
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
    idempotency: IdempotencyKeys

    def submit(
        self, form: Form, owner: str, idempotency_key: str | None, *, masks_only: bool = False
    ) -> tuple[str, bool]:
        """The id of the queued edit, and whether the same request had made it before; or raises the Problem. Blocks on
        decoding and on Redis."""
        request = parsing.parse(form, self.settings.max_outputs, masks_only=masks_only)
        edit_id = new_edit_id()
        if idempotency_key is None:
            self._submit(edit_id, form, request, owner, None)
            return edit_id, False
        claimed = self._claim(owner, idempotency_key, form.fingerprint(masks_only), edit_id)
        if isinstance(claimed, str):
            return claimed, True
        try:
            self._submit(edit_id, form, request, owner, claimed.claim)
        except Exception:
            self.idempotency.release(claimed)
            raise
        return edit_id, False

    def _claim(self, owner: str, key: str, fingerprint: str, edit_id: str) -> Claimed | str:
        try:
            return self.idempotency.claim(owner, key, fingerprint, edit_id)
        except InFlight:
            raise Problem("idempotency-in-flight", "the same request is being answered; try again") from None
        except Mismatch:
            raise Problem("idempotency-mismatch", "take a new key for a new request; keys are kept 24 hours") from None

    def _submit(self, edit_id: str, form: Form, request: parsing.Request, owner: str, claim: Claim | None) -> None:
        picture = images.read_picture(form.files["image"].file, self.settings.max_pixels)
        masks = {
            name: images.read_mask(form.files[name].file, picture.size, self.settings.max_pixels, name)
            for name in dict.fromkeys(request.masks)
            if name is not None
        }
        if self.queue.length() >= self.settings.max_queue:
            raise Problem("queue-full", f"{self.settings.max_queue} edits are waiting; try again later")
        if not presence.expected(self.repository.redis):
            raise Problem("no-workers", f"no worker was heard of for {presence.MISSED_AFTER_S} s; try again later")
        with structlog.contextvars.bound_contextvars(edit_id=edit_id):
            self._take_in(edit_id, request, picture, masks, owner, claim)
            log.info("edit queued", instructions=len(request.masks), size=picture.size)

    def _take_in(
        self,
        edit_id: str,
        request: parsing.Request,
        picture: Image.Image,
        masks: dict[str, Image.Image],
        owner: str,
        claim: Claim | None,
    ) -> None:
        created_at = now()
        try:
            files = {INPUT_FILE: self._store(edit_id, INPUT_FILE, picture)}
            names = {part: f"input-mask-{i}.png" for i, part in enumerate(sorted(masks), 1)}
            files |= {names[part]: self._store(edit_id, names[part], mask) for part, mask in masks.items()}
            submission = Submission(
                id=edit_id,
                owner=owner,
                created_at=created_at,
                input=_edit_input(request, names, picture.size),
                metadata=request.metadata,
                files=files,
                priority=request.priority,
                deadline_at=created_at + timedelta(seconds=request.deadline_s) if request.deadline_s else None,
                previews=request.previews,
                webhook=request.webhook,
            )
            most = self.settings.max_edits_per_key if owner else 0
            if not self.repository.create(submission, most, claim):
                raise Problem("quota-exceeded", f"{most} edits of this key wait or run; wait for one of them to end")
            self._enqueue(submission)
        except Exception:
            self.blobs.delete_edit(edit_id)
            raise

    def cancel(self, record: EditRecord) -> None:
        """Idempotent; an edit that has ended stays as it is."""
        if self.repository.cancel(record.submission.id) == "canceled":
            self.queue.remove(record.submission.id, record.submission.priority)

    def delete(self, record: EditRecord) -> None:
        """The record, then the files: what a crash in between leaves is swept."""
        edit_id = record.submission.id
        self.repository.delete(edit_id)
        self.queue.remove(edit_id, record.submission.priority)
        self.blobs.delete_edit(edit_id)

    def estimate(self, record: EditRecord) -> tuple[int | None, int | None]:
        """Place in the queue and seconds until the end, as far as they are known."""
        return pace.estimate(self.repository.redis, self.queue, record)

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
        n=request.n,
        output_size=request.output_size,
        output_format=request.output_format,
        width=size[0],
        height=size[1],
    )
