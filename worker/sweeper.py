"""Removes the files of edits that have expired, and of submits that made no edit."""

from __future__ import annotations

import time
from threading import Thread

from obstore.exceptions import BaseError as StoreError

from jobs import deployment
from jobs.blobs import BlobStore
from jobs.connection import RedisError
from jobs.logs import get_logger
from jobs.object_store import reason
from jobs.repository import EditRepository

SWEEP_INTERVAL_S = 600
LOOK_S = 60
BATCH = 1000
SWEPT = "foi:swept"
"""In Redis for an interval: one sweep serves all workers."""
ORPHANS = "foi:orphans"
"""In Redis: what the last sweep found without a record."""

log = get_logger(__name__)


class Sweeper:
    """Seen in two sweeps without a record, so that a submit in between is safe."""

    def __init__(self, repository: EditRepository, blobs: BlobStore) -> None:
        self._repository, self._blobs = repository, blobs
        self._next = 0.0

    def tick(self) -> None:
        """Call as often as you like. Never waits for the store: it may be slow, and the caller has leases to renew."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_S
            Thread(target=self._sweep_when_due, name="sweeper", daemon=True).start()

    def sweep(self) -> None:
        """Raises ForeignStoreError where the files may belong to edits that another Redis knows."""
        deployment.check(self._repository, self._blobs)
        redis, orphans = self._repository.redis, self._without_record()
        seen_before = orphans & set(redis.smembers(ORPHANS))
        for edit_id in seen_before:
            self._blobs.delete_edit(edit_id)
            log.info("files removed: the edit has expired", edit_id=edit_id)
        with redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(ORPHANS)
            if new := orphans - seen_before:
                pipeline.sadd(ORPHANS, *new)
                pipeline.expire(ORPHANS, 10 * SWEEP_INTERVAL_S)
            pipeline.execute()

    def _sweep_when_due(self) -> None:
        try:
            if self._repository.redis.set(SWEPT, "1", nx=True, ex=SWEEP_INTERVAL_S):
                self.sweep()
        except deployment.ForeignStoreError as error:
            log.error("not swept", reason=str(error))
        except (RedisError, StoreError, OSError) as error:
            log.warning("sweep not finished: the rest is for the next", reason=reason(error))
        except Exception:
            log.exception("sweep not finished: an unexpected error")

    def _without_record(self) -> set[str]:
        stored = self._blobs.edit_ids()
        batches = [stored[i : i + BATCH] for i in range(0, len(stored), BATCH)]
        return {edit_id for batch in batches for edit_id in set(batch) - self._repository.known(batch)}
