"""The files of an edit: exactly those that its record lists, in ranges, cacheable."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.blobs import BlobStore
from jobs.repository import EditRepository
from tests.service.test_bad_input import refused
from tests.service.test_edits import submit
from tests.support import FakeEngine, picture, run_edit


@pytest.fixture
def edit(client: httpx.Client, repository: EditRepository, served_blobs: BlobStore) -> dict[str, Any]:
    submitted = submit(client).json()
    run_edit(FakeEngine(), repository, served_blobs, submitted["id"])
    found: dict[str, Any] = client.get(submitted["urls"]["self"]).json()
    return found


@pytest.mark.parametrize("name", ["input.png", "result.png", "mask-1.png", "attention-1.png"])
def test_each_listed_file_is_a_picture(client: httpx.Client, edit: dict[str, Any], name: str) -> None:
    answer = client.get(f"{edit['urls']['self']}/files/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    Image.open(io.BytesIO(answer.content)).verify()


def test_the_normalised_input_is_the_picture_that_was_sent(client: httpx.Client, edit: dict[str, Any]) -> None:
    sent = Image.open(io.BytesIO(client.get(f"{edit['urls']['self']}/files/input.png").content))
    assert sent.tobytes() == picture().tobytes()


def test_ranges_and_etags_work(client: httpx.Client, edit: dict[str, Any]) -> None:
    address = edit["outputs"][0]["url"]
    whole = client.get(address)
    part = client.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert whole.headers["etag"] == f'"{edit["outputs"][0]["sha256"]}"'
    again = client.get(address, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    changed = client.get(address, headers={"Range": "bytes=10-19", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, whole.content)


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=5-", 5, None),
        ("bytes=-5", -5, None),
        ("bytes=0-0", 0, 1),
        ("Bytes = 3-99999999", 3, None),
        ("bytes=-99999999", 0, None),
        ("bytes=999999-,2-4", 2, 5),
        ("bytes=1-3, 2-6", 1, 7),
    ],
)
def test_a_range_is_read_as_http_says(
    client: httpx.Client, edit: dict[str, Any], asked: str, first: int, last: int | None
) -> None:
    address = edit["outputs"][0]["url"]
    whole = client.get(address).content
    answer = client.get(address, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, whole[first:last])
    start = first % len(whole)
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(answer.content) - 1}/{len(whole)}"


@pytest.mark.parametrize(
    "asked",
    [
        *("", "bytes=", "bytes=-", "bytes=a-b", "bytes=9-3", "bytes 1-2", "lines=1-2", "bytes=1-2,x", "bytes=--1"),
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_a_range_that_is_none_is_ignored(client: httpx.Client, edit: dict[str, Any], asked: str) -> None:
    answer = client.get(edit["outputs"][0]["url"], headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(answer.content)))
    assert len(answer.content) > 100


@pytest.mark.parametrize("asked", ["bytes=999999-", "bytes=-0", "bytes=999999-1000000, -0"])
def test_a_range_that_the_file_does_not_have_is_416(client: httpx.Client, edit: dict[str, Any], asked: str) -> None:
    address = edit["outputs"][0]["url"]
    size = len(client.get(address).content)
    answer = client.get(address, headers={"Range": asked})
    refused(answer, 416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"
    changed = client.get(address, headers={"Range": asked, "If-Range": '"other"'})
    assert (changed.status_code, len(changed.content)) == (200, size)


def test_several_ranges_come_as_parts(client: httpx.Client, edit: dict[str, Any]) -> None:
    address = edit["outputs"][0]["url"]
    whole = client.get(address).content
    answer = client.get(address, headers={"Range": "bytes=0-1,-2"})
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert whole[:2] in answer.content
    assert whole[-2:] in answer.content


def test_head_tells_what_get_would_send(client: httpx.Client, edit: dict[str, Any]) -> None:
    address = edit["outputs"][0]["url"]
    whole, head = client.get(address), client.head(address, headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "cache-control", "x-content-type-options"):
        assert head.headers[name] == whole.headers[name]
    assert head.headers["x-content-type-options"] == "nosniff"
    assert client.head(f"{address}.x").status_code == 404


@pytest.mark.parametrize("condition", ["*", 'W/"{0}"', '"other", "{0}"'])
def test_a_caller_that_has_the_file_does_not_get_it_again(
    client: httpx.Client, edit: dict[str, Any], condition: str
) -> None:
    address, digest = edit["outputs"][0]["url"], edit["outputs"][0]["sha256"]
    answer = client.get(address, headers={"If-None-Match": condition.format(digest), "Range": "bytes=999999-"})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", f'"{digest}"')


@pytest.mark.parametrize(
    "name",
    ["result.jpeg", "mask-2.png", "nope", "..%2f..%2fredis%2flock", "%2fetc%2fpasswd", "in%2finput.png", "%00", "."],
)
def test_other_names_are_404(client: httpx.Client, edit: dict[str, Any], name: str) -> None:
    assert client.get(f"{edit['urls']['self']}/files/{name}").status_code == 404


def test_a_file_that_was_removed_is_404_and_no_crash(
    client: httpx.Client, edit: dict[str, Any], served_blobs: BlobStore
) -> None:
    served_blobs.delete_edit(edit["id"])
    assert client.get(edit["outputs"][0]["url"]).status_code == 404
