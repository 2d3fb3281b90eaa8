"""Files in a bucket behave as files in a folder do, and a setting that cannot work is refused at the start."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import obstore
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from obstore.exceptions import BaseError as StoreError
from obstore.exceptions import PermissionDeniedError

from jobs import object_store
from jobs.blobs import BlobStore
from jobs.object_store import Probe, StoreSettingError, check_setting, open_store
from jobs.settings import Settings
from tests.s3 import S3, running_s3


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with running_s3(monkeypatch) as server:
        yield server


@pytest.fixture
def bucket(s3: S3) -> BlobStore:
    return BlobStore.of(Settings(store=s3.url))


def test_bytes_come_back_with_their_digest_size_and_type(s3: S3, bucket: BlobStore) -> None:
    stored = bucket.put_input("edit_1", "input.png", b"bytes", "image/png")
    assert bucket.get(stored.key) == b"bytes"
    assert (stored.sha256, stored.size) == (hashlib.sha256(b"bytes").hexdigest(), 5)
    assert s3.stored() == ["edits/edit_1/in/input.png"]
    found = httpx.get(bucket.signed_url(stored.key, "GET", 90))
    assert (found.content, found.headers["content-type"]) == (b"bytes", "image/png")


def test_a_large_file_is_whole(bucket: BlobStore) -> None:
    data = bytes(range(256)) * 50_000  # more than two parts of an upload
    assert bucket.get(bucket.put_input("edit_1", "input.png", data, "image/png").key) == data


def test_deleting_an_edit_leaves_others_and_other_folders(s3: S3, bucket: BlobStore) -> None:
    BlobStore.of(Settings(store=f"s3://{s3.bucket}/other")).put_input("edit_1", "input.png", b"", "image/png")
    bucket.put_input("edit_1", "input.png", b"one", "image/png")
    bucket.put_output("edit_1", 1, "result.png", b"one", "image/png")
    bucket.put_output("edit_1", 2, "result.png", b"two", "image/png")
    bucket.put_input("edit_10", "input.png", b"ten", "image/png")
    bucket.delete_outputs("edit_1", 1)
    assert "edits/edit_1/out-2/result.png" in s3.stored()
    assert "edits/edit_1/out-1/result.png" not in s3.stored()
    bucket.delete_edit("edit_1")
    bucket.delete_edit("edit_1")
    assert s3.stored() == ["edits/edit_10/in/input.png", "other/edit_1/in/input.png"]
    assert bucket.edit_ids() == ["edit_10"]


def test_a_missing_file_says_so(bucket: BlobStore) -> None:
    with pytest.raises(FileNotFoundError):
        bucket.get("edit_1/in/input.png")


def test_more_edits_than_one_page_of_the_store_are_listed_and_deleted(
    bucket: BlobStore, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    for i in range(5):
        bucket.put_input(f"edit_{i}", "input.png", b"", "image/png")
        bucket.put_output("edit_0", 1, f"mask-{i}.png", b"", "image/png")
    assert sorted(bucket.edit_ids()) == [f"edit_{i}" for i in range(5)]
    bucket.delete_edit("edit_0")
    monkeypatch.delenv("MOTO_S3_DEFAULT_MAX_KEYS")
    assert s3.stored() == [f"edits/edit_{i}/in/input.png" for i in range(1, 5)]


def test_a_signed_address_needs_no_key_and_names_its_end(bucket: BlobStore) -> None:
    stored = bucket.put_input("edit_1", "input.png", b"bytes", "image/png")
    assert bucket.path(stored.key) is None
    url = bucket.signed_url(stored.key, "GET", 90)
    assert "X-Amz-Expires=90&" in url
    assert httpx.get(url).content == b"bytes"


def test_the_probe_leaves_nothing_behind(s3: S3, bucket: BlobStore) -> None:
    bucket.check_writable()
    assert s3.stored() == []


def test_a_store_that_dies_is_noticed_and_so_is_its_return(s3: S3, bucket: BlobStore) -> None:
    s3.stop()
    bucket.check_writable()  # asked a moment ago
    bucket._probe._due = 0
    for _ in range(2):
        with pytest.raises(StoreError):
            bucket.check_writable()
    s3.start()
    bucket._probe._due = 0
    bucket.check_writable()


def test_while_a_dead_store_is_asked_again_others_hear_that_it_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "PROBE_S", 0)
    heard: list[str] = []

    def ask() -> None:
        if heard:
            with pytest.raises(OSError, match="dead"):
                probe()  # someone else, while this one waits
        heard.append("asked")
        raise OSError("dead")

    probe = Probe(ask)
    for _ in range(2):
        with pytest.raises(OSError, match="dead"):
            probe()
    assert heard == ["asked", "asked"]


def test_probes_do_not_pile_up_before_a_store_that_hangs() -> None:
    asked = []
    probe = Probe(lambda: (asked.append(1), probe())[1])  # the second comes while the first one waits
    probe()
    probe()
    assert len(asked) == 1


def test_a_store_that_hangs_is_given_up_in_time(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    assert object_store.RETRY_S < object_store.REQUEST_S <= 10, "a request that took all its time is not tried again"
    monkeypatch.setattr(object_store, "REQUEST_S", 1)
    monkeypatch.setattr(object_store, "RETRY_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        bucket, started = BlobStore(open_store(s3.url)), time.monotonic()
        with pytest.raises(StoreError):
            bucket.put_input("edit_1", "input.png", b"bytes", "image/png")
    assert time.monotonic() - started < 3


def test_a_dead_store_does_not_keep_the_service_from_starting(s3: S3) -> None:
    s3.stop()
    bucket = BlobStore.of(Settings(store=s3.url))
    with pytest.raises(StoreError):
        bucket.check_writable()
    s3.start()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("bucket", "expected s3://bucket/prefix"),
        ("s3://", "expected s3://bucket/prefix"),
        ("s3:///prefix", "expected s3://bucket/prefix"),
        ("s3://key:secret@bucket", "expected s3://bucket/prefix"),
        ("s3://bucket?region=x", "expected s3://bucket/prefix"),
        ("ftp://bucket", "expected s3://bucket/prefix"),
        ("file:///tmp", "expected s3://bucket/prefix"),
        ("s3://bucket/a/../b", "a/../b"),
        ("s3://no-such-bucket", "no such bucket; create it"),
        ("az://container", "Account must be specified"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_an_address_that_cannot_work_is_refused_at_the_start(url: str, message: str) -> None:
    with pytest.raises(StoreSettingError) as refusal:
        BlobStore.of(Settings(store=url))
    assert message in str(refusal.value)
    assert f"FOI_STORE={url!r}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_endpoint_without_tls_must_be_allowed(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StoreSettingError, match="AWS_ALLOW_HTTP=true"):
        BlobStore.of(Settings(store=s3.url))


def test_credentials_that_may_not_write_are_refused_at_the_start() -> None:
    def denied() -> None:
        raise PermissionDeniedError("403 Forbidden\n\nDebug source: ...")

    with pytest.raises(StoreSettingError, match=r"may not write there: 403 Forbidden$"):
        check_setting("s3://bucket", denied)


def test_azure_is_opened_by_the_same_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    url = BlobStore(open_store("az://container/edits/")).signed_url("edit_1/in/input.png", "GET", 90)
    assert url.startswith("https://account.blob.core.windows.net/container/edits/edit_1/in/input.png?")
    assert "sig=" in url


def test_google_is_opened_by_the_same_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"client_email": "a@b", "private_key": key.decode(), "private_key_id": "1", "disable_oauth": False}
    (tmp_path / "account.json").write_text(json.dumps({**account, "type": "service_account"}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    store = open_store("gs://bucket/edits")
    url = obstore.sign(store, "GET", "edit_1/in/input.png", timedelta(seconds=90))
    assert url.startswith("https://storage.googleapis.com/bucket/edits/edit_1/in/input.png?")
    assert "X-Goog-Signature=" in url
