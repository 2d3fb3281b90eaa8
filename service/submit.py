"""Taking an edit in. 4xx are decided before anything is stored; then the bytes are stored, and then one script writes
record, idempotency key and queue entry."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO

import structlog
from obstore.exceptions import BaseError as StoreError

from foi_core.spec import SEED_LIMIT
from jobs import pace, presence
from jobs.blobs import BlobStore
from jobs.connection import RedisConnectionError, RedisTimeoutError
from jobs.idempotency import IdempotencyKeys, InFlight, Mismatch
from jobs.logs import get_logger
from jobs.queue import EditQueue
from jobs.records import (
    UPLOAD,
    EditInput,
    EditRecord,
    Instruction,
    Outcome,
    StoredFile,
    Submission,
    new_edit_id,
)
from jobs.repository import Claim, ClaimLostError, EditRepository
from jobs.settings import Settings
from jobs.webhooks import DeliveryStore
from service import parsing
from service.fetch import check_webhook_url
from service.forms import Form
from service.problems import Problem

log = get_logger(__name__)


@dataclass(frozen=True)
class Begun:
    """A submit whose fields are all right. `replayed`: the same request has made this edit before. `record` as it was
    queued, in the end."""

    edit_id: str
    owner: str
    request: parsing.Request
    claim: Claim | None = None
    replayed: bool = False
    record: EditRecord | None = None


@dataclass(frozen=True)
class Intake:
    """What a submit needs."""

    settings: Settings
    repository: EditRepository
    blobs: BlobStore
    queue: EditQueue
    idempotency: IdempotencyKeys

    def begin(self, form: Form, owner: str, idempotency_key: str | None, *, masks_only: bool = False) -> Begun:
        """What is wrong with the fields is said here, before a picture is fetched or looked at. Raises the Problem."""
        request = parsing.parse(form, self.settings, masks_only=masks_only)
        if request.webhook is not None:
            check_webhook_url(request.webhook.url, self.settings)
        edit_id = new_edit_id()
        if idempotency_key is None:
            return Begun(edit_id, owner, request)
        try:
            claimed = self.idempotency.claim(owner, idempotency_key, form.fingerprint(masks_only), edit_id)
        except InFlight:
            raise Problem("idempotency-in-flight", "the same request is being answered; try again") from None
        except Mismatch:
            raise Problem("idempotency-mismatch", "take a new key for a new request; keys are kept 24 hours") from None
        if isinstance(claimed, str):
            return Begun(claimed, owner, request, replayed=True)
        return Begun(edit_id, owner, request, claimed)

    def check_room(self) -> None:
        """Raises the Problem where an edit would wait for too long, or for nobody."""
        if self.queue.length() >= self.settings.max_queue:
            raise Problem("queue-full", f"{self.settings.max_queue} edits are waiting; try again later")
        if not presence.expected(self.repository.redis):
            raise Problem("no-workers", f"no worker was heard of for {presence.MISSED_AFTER_S} s; try again later")

    def finish(self, begun: Begun, form: Form, size: tuple[int, int]) -> EditRecord:
        """The edit is stored and queued, or the Problem is raised. Its pictures have been checked; `size` is that of
        the one to edit. Blocks on the store and on Redis."""
        with structlog.contextvars.bound_contextvars(edit_id=begun.edit_id):
            record = self._take_in(begun, form, size)
            log.info("edit queued", instructions=len(begun.request.masks), size=size)
        return record

    def abandon(self, begun: Begun) -> None:
        """Nothing came of it: its idempotency key is free again."""
        if begun.claim is not None:
            self.idempotency.release(begun.claim)

    def _take_in(self, begun: Begun, form: Form, size: tuple[int, int]) -> EditRecord:
        edit_id, request = begun.edit_id, begun.request
        masks = {name for name in request.masks if name is not None}
        created_at = self.repository.now()
        try:
            upload = self._store_upload(edit_id, form.files["image"].file)
            names = {part: f"input-mask-{i}.png" for i, part in enumerate(sorted(masks), 1)}
            files = {name: self._store_mask(edit_id, name, form.files[part].file) for part, name in names.items()}
            submission = Submission(
                id=edit_id,
                owner=begun.owner,
                created_at=created_at,
                input=edit_input(request, names, size),
                metadata=request.metadata,
                upload=upload,
                files=files,
                priority=request.priority,
                deadline_at=created_at + timedelta(seconds=request.deadline_s) if request.deadline_s else None,
                previews=request.previews,
                webhook=request.webhook,
            )
            self._record(submission, begun.claim)
            return EditRecord(submission=submission, status="queued", expires_at=self.repository.expiry(submission))
        except (RedisConnectionError, RedisTimeoutError):
            raise  # the record may be there, and name these files; where it is not, they are swept
        except Exception:
            with suppress(StoreError, OSError):  # the first error counts, and what is left is swept
                self.blobs.delete_edit(edit_id)
            raise

    def cancel(self, record: EditRecord) -> None:
        """Idempotent; an edit that has ended stays as it is."""
        self.repository.cancel(record.submission.id)

    def delete(self, record: EditRecord) -> None:
        """The record last: until it is gone the caller can ask again. What a worker stores meanwhile is swept."""
        edit_id = record.submission.id
        self.repository.commit(edit_id, None, Outcome.canceled(self.repository.now()))
        if (ended := self.repository.get(edit_id)) is not None:
            DeliveryStore(self.repository, self.settings.public_url).prepare(ended)
        self.blobs.delete_edit(edit_id)
        self.repository.delete(edit_id)

    def estimate(self, record: EditRecord) -> tuple[int | None, int | None]:
        """Place in the queue and seconds until the end, as far as they are known."""
        return pace.estimate(self.repository.redis, self.queue, record)

    def _record(self, submission: Submission, claim: Claim | None) -> None:
        most = self.settings.max_edits_per_key if submission.owner else 0
        entry = self.queue.entry(submission.id, submission.priority)
        try:
            created = self.repository.create(submission, most, claim, entry)
        except ClaimLostError:
            raise Problem("idempotency-in-flight", "the same request came again meanwhile; try again") from None
        if not created:
            raise Problem("quota-exceeded", f"{most} edits of this key wait or run; wait for one of them to end")

    def _store_mask(self, edit_id: str, name: str, file: BinaryIO) -> StoredFile:
        return self.blobs.put_input(edit_id, name, file, "image/png")

    def _store_upload(self, edit_id: str, file: BinaryIO) -> StoredFile:
        return self.blobs.put_input(edit_id, UPLOAD, file, "application/octet-stream")


def edit_input(request: parsing.Request, mask_names: dict[str, str], size: tuple[int, int]) -> EditInput:
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
        output_quality=request.output_quality,
        width=size[0],
        height=size[1],
    )
