"""The store as a running edit needs it: outages are waited out, since the work is worth more than a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from obstore.exceptions import BaseError as StoreError

from jobs.blobs import BlobStore
from jobs.logs import get_logger
from jobs.object_store import reason
from jobs.records import StoredFile
from worker.room import HandedBack, Place

PATIENCE_S = 60
RETRY_S = 2

T = TypeVar("T")
log = get_logger(__name__)


@dataclass(frozen=True)
class PatientStore:
    """Everything raises HandedBack where the store does not answer for PATIENCE_S, or the worker stops meanwhile."""

    blobs: BlobStore
    place: Place

    def check_writable(self) -> None:
        self._patiently(self.blobs.check_writable)

    def get(self, key: str) -> bytes:
        """Raises FileNotFoundError."""
        return self._patiently(partial(self.blobs.get, key))

    def put_output(self, edit_id: str, attempt: int, name: str, data: bytes, media_type: str) -> StoredFile:
        return self._patiently(partial(self.blobs.put_output, edit_id, attempt, name, data, media_type))

    def _patiently(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call()
            except FileNotFoundError:
                raise
            except (StoreError, OSError) as error:
                log.warning("the store does not answer", reason=reason(error))
            if time.monotonic() >= deadline:
                raise HandedBack("the store does not answer")
            self.place.pause(RETRY_S)
