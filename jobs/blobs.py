"""The bytes of edits: one folder per edit in an object store. Only ids cross the queue, never bytes."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import obstore
from obstore.store import LocalStore

from jobs.records import StoredFile


class BlobStore:
    """A local folder today; obstore speaks to S3, GCS and Azure alike. Writes are atomic: a file is whole or absent."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._store = LocalStore(self.root, mkdir=True, automatic_cleanup=True)

    def put_input(self, edit_id: str, name: str, data: bytes, media_type: str) -> StoredFile:
        return self._put(f"{edit_id}/in/{name}", data, media_type)

    def put_output(self, edit_id: str, attempt: int, name: str, data: bytes, media_type: str) -> StoredFile:
        """Each attempt has its own folder: a worker that was given up for dead cannot touch what a later one stored."""
        return self._put(f"{edit_id}/out-{attempt}/{name}", data, media_type)

    def get(self, key: str) -> bytes:
        """Raises FileNotFoundError."""
        return bytes(obstore.get(self._store, key).bytes())

    def path(self, key: str) -> Path:
        """Where a file of a local store is, so that the HTTP service can send it in ranges."""
        return self.root / key

    def delete_edit(self, edit_id: str) -> None:
        """Removes all files of an edit; fine when there are none."""
        self._delete_all(edit_id)

    def delete_outputs(self, edit_id: str, attempt: int) -> None:
        """Removes what one attempt stored."""
        self._delete_all(f"{edit_id}/out-{attempt}")

    def edit_ids(self) -> list[str]:
        """Every edit that has files here."""
        folders = obstore.list_with_delimiter(self._store)["common_prefixes"]
        return [name for name in folders if name.startswith("edit_")]

    def check_writable(self) -> None:
        """Raises OSError where nothing can be stored."""
        key = f"probe-{uuid.uuid4().hex}"
        obstore.put(self._store, key, b"")
        self._delete(key)

    def _put(self, key: str, data: bytes, media_type: str) -> StoredFile:
        obstore.put(self._store, key, data)
        return StoredFile(key=key, media_type=media_type, sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    def _delete_all(self, prefix: str) -> None:
        for chunk in obstore.list(self._store, prefix):
            for entry in chunk:
                self._delete(entry["path"])

    def _delete(self, key: str) -> None:
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return  # someone else was faster, and the file is gone, which was the point
