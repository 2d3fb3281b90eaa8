"""The files of an edit: exactly those that its record lists, in ranges, cacheable."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.blobs import BlobStore
from jobs.repository import EditRepository
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
    assert client.get(address, headers={"Range": "bytes=999999-"}).status_code == 416


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
