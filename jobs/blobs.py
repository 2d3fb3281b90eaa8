"""The bytes of edits: one folder per edit in an object store. Only ids cross the queue, never bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Literal

import obstore
from obstore.exceptions import BaseError as StoreError
from obstore.store import LocalStore

from jobs.object_store import Probe, RemoteStore, StoreSettingError, check_setting, open_store, reason
from jobs.records import StoredFile
from jobs.settings import Settings

if TYPE_CHECKING:  # it is no more than a type
    from obstore import Attributes

BLOCK = 4096
DEPLOYMENT_FILE = "deployment"
CHUNK = 3 * 2**19
"""Bytes of a file that are read at once; a multiple of 3, so that base64 can be joined."""


class BlobStore:
    """A local folder, or a bucket. Writes are atomic: a file is whole or absent. What the store itself refuses is
    raised as obstore's BaseError or as OSError; `on_error` is told of it."""

    def __init__(self, place: Path | RemoteStore) -> None:
        self._store: LocalStore | RemoteStore
        if isinstance(place, Path):
            self.root: Path | None = place.absolute()
            self._store = LocalStore(self.root, mkdir=True, automatic_cleanup=True)
        else:
            self.root, self._store = None, place
        self._probe = Probe(self._write_and_delete)
        self.on_error: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, settings: Settings) -> BlobStore:
        """Raises StoreSettingError."""
        if not settings.store:
            try:
                return cls(settings.data_dir / "blobs")
            except (StoreError, OSError) as error:
                raise StoreSettingError(f"FOI_DATA_DIR={str(settings.data_dir)!r}: {reason(error)}") from None
        blobs = cls(open_store(settings.store))
        check_setting(settings.store, blobs.check_writable)
        return blobs

    def put_input(self, edit_id: str, name: str, data: bytes | BinaryIO, media_type: str) -> StoredFile:
        """A file is stored from its beginning, a part at a time."""
        return self._put(f"{edit_id}/in/{name}", data, media_type)

    def put_output(self, edit_id: str, attempt: int, name: str, data: bytes, media_type: str) -> StoredFile:
        """Each attempt has its own folder: a worker that was given up for dead cannot touch what a later one stored."""
        return self._put(f"{edit_id}/out-{attempt}/{name}", data, media_type)

    def get(self, key: str) -> bytes:
        """Raises FileNotFoundError."""
        with self._telling():
            return bytes(obstore.get(self._store, key).bytes())

    def read(self, stored: StoredFile) -> Iterator[bytes]:
        """The file's bytes, CHUNK at a time: each chunk is asked for by itself, so that a slow reader outlives no time
        limit of the store. Raises FileNotFoundError."""
        for start in range(0, stored.size, CHUNK):
            length = min(CHUNK, stored.size - start)
            with self._telling():
                yield bytes(obstore.get_range(self._store, stored.key, start=start, length=length))

    def path(self, key: str) -> Path | None:
        """Where a file of a local store is, so that the HTTP service can send it in ranges; None in a bucket."""
        return self.root / key if self.root else None

    def signed_url(self, key: str, method: Literal["GET", "HEAD"], seconds: int) -> str:
        """An address at which whoever has it may fetch the file of a bucket, for so long."""
        assert not isinstance(self._store, LocalStore)
        return obstore.sign(self._store, method, key, timedelta(seconds=seconds))

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

    def deployment(self) -> str | None:
        """The id of the deployment that the files belong to; None where nobody has put one there yet."""
        try:
            return self.get(DEPLOYMENT_FILE).decode()
        except FileNotFoundError:
            return None

    def put_deployment(self, deployment_id: str) -> None:
        self._put(DEPLOYMENT_FILE, deployment_id.encode(), "text/plain")

    def check_writable(self) -> None:
        """Raises where nothing can be stored. Leaves nothing behind, even when it is killed."""
        if self.root is None:
            self._probe()
            return
        with TemporaryFile(dir=self.root) as file:
            file.write(bytes(BLOCK))

    def _write_and_delete(self) -> None:
        """Under one name, which the next probe would write and delete again."""
        obstore.put(self._store, "probe", b"")
        obstore.delete(self._store, "probe")

    def _put(self, key: str, data: bytes | BinaryIO, media_type: str) -> StoredFile:
        if isinstance(data, bytes):
            digest, size = hashlib.sha256(data), len(data)
        else:
            size = data.seek(0, os.SEEK_END)
            data.seek(0)
            digest = hashlib.file_digest(data, "sha256")  # type: ignore[arg-type]  # it wants no more than we have
            data.seek(0)
        with self._telling():
            if self.root:
                in_one = isinstance(data, bytes) or size <= CHUNK
                obstore.put(self._store, key, data, use_multipart=not in_one, max_concurrency=1)
            else:  # in parts where it is large, so that each has the whole time of a request
                attributes: Attributes = {"Content-Type": media_type}
                obstore.put(self._store, key, data, attributes=attributes, max_concurrency=2)
        return StoredFile(key=key, media_type=media_type, sha256=digest.hexdigest(), size=size)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise  # an answer like any other
        except (StoreError, OSError):
            self.on_error()
            raise

    def _delete_all(self, prefix: str) -> None:
        for chunk in obstore.list(self._store, prefix, chunk_size=1000):
            self._delete([entry["path"] for entry in chunk])
        if self.root:  # half a file of a process that was killed is not listed
            shutil.rmtree(self.root / prefix, ignore_errors=True)

    def _delete(self, keys: list[str]) -> None:
        try:
            obstore.delete(self._store, keys)
        except FileNotFoundError:  # someone else was faster with one of them, and nobody knows where this stopped
            if len(keys) > 1:
                for key in keys:
                    self._delete([key])
