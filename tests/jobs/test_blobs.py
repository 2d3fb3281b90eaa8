"""The blob store: one folder per edit, nothing outside it, nothing half-written."""

from __future__ import annotations

import hashlib
import resource
from pathlib import Path

import pytest
from obstore.exceptions import BaseError as StoreError

from jobs.blobs import BlobStore
from jobs.object_store import StoreSettingError
from jobs.settings import Settings


def test_bytes_come_back_with_their_digest_and_size(blobs: BlobStore) -> None:
    stored = blobs.put_input("edit_1", "input.png", b"bytes", "image/png")
    assert blobs.get(stored.key) == b"bytes"
    path = blobs.path(stored.key)
    assert path is not None
    assert path.read_bytes() == b"bytes"
    assert (stored.sha256, stored.size) == (hashlib.sha256(b"bytes").hexdigest(), 5)


def test_attempts_do_not_overwrite_each_other(blobs: BlobStore) -> None:
    first = blobs.put_output("edit_1", 1, "result.png", b"one", "image/png")
    second = blobs.put_output("edit_1", 2, "result.png", b"two", "image/png")
    assert (blobs.get(first.key), blobs.get(second.key)) == (b"one", b"two")


def test_deleting_an_edit_leaves_others_and_no_empty_folders(blobs: BlobStore) -> None:
    blobs.put_input("edit_1", "input.png", b"one", "image/png")
    blobs.put_output("edit_1", 1, "result.png", b"one", "image/png")
    other = blobs.put_input("edit_10", "input.png", b"ten", "image/png")
    blobs.delete_edit("edit_1")
    blobs.delete_edit("edit_1")
    assert blobs.edit_ids() == ["edit_10"]
    assert blobs.get(other.key) == b"ten"
    assert [path.name for path in blobs.root.iterdir()] == ["edit_10"]


def test_a_missing_file_says_so(blobs: BlobStore) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.get("edit_1/in/input.png")


def test_keys_cannot_leave_the_store(blobs: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="illegal"):
        blobs.put_input("../edit_1", "input.png", b"bytes", "image/png")
    assert not list(tmp_path.rglob("input.png"))


def test_the_probe_leaves_nothing_behind(blobs: BlobStore) -> None:
    blobs.check_writable()
    assert list(blobs.root.rglob("*")) == []


def test_half_a_file_of_a_process_that_was_killed_goes_with_its_edit(blobs: BlobStore) -> None:
    folder = blobs.root / "edit_1" / "in"
    folder.mkdir(parents=True)
    (folder / "input.png#1").write_bytes(b"ha")  # as the store names a file that is being written
    assert blobs.edit_ids() == ["edit_1"]
    blobs.delete_edit("edit_1")
    assert list(blobs.root.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_no_half_file(blobs: BlobStore) -> None:
    """A limit on the size of files fails a write in its middle, as a full disk does."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))
    try:
        with pytest.raises(StoreError, match="File too large"):
            blobs.put_input("edit_1", "input.png", bytes(2000), "image/png")
        with pytest.raises(OSError, match="File too large"):
            blobs.check_writable()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert [path for path in blobs.root.rglob("*") if path.is_file()] == []
    blobs.check_writable()


def test_a_folder_that_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(StoreSettingError, match="FOI_DATA_DIR="):
        BlobStore.of(Settings(data_dir=tmp_path / "data"))
