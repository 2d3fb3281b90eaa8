"""The blob store: one folder per edit, nothing outside it, nothing half-written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from jobs.blobs import BlobStore


def test_bytes_come_back_with_their_digest_and_size(blobs: BlobStore) -> None:
    stored = blobs.put_input("edit_1", "input.png", b"bytes", "image/png")
    assert blobs.get(stored.key) == b"bytes"
    assert blobs.path(stored.key).read_bytes() == b"bytes"
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
