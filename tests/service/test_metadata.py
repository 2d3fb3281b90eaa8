"""What a camera or a program wrote into a picture stays with its owner: none of it is stored, none comes out."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from jobs.blobs import BlobStore
from jobs.repository import EditRepository
from tests.support import FakeEngine, encoded, picture, run_edit

SECRET = "SECRET-47.3769N-8.5417E"
SOURCE_TYPE = b"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
OUR_OWN = {
    *("xmp", "XML:com.adobe.xmp"),
    *("jfif", "jfif_version", "jfif_unit", "jfif_density"),
    *("loop", "background", "timestamp", "duration"),
}
"""What Pillow reads back of a result: its provenance, and what each format says of itself."""
XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><place>{SECRET}</place></x:xmpmeta>'.encode()


def exif() -> Image.Exif:
    """Maker, owner and comment in words; the place as a camera writes it, and in words."""
    tags = Image.Exif()
    tags[0x010F] = tags[0x013B] = tags[0x8298] = SECRET
    tags[0x8769] = {0x9286: b"ASCII\0\0\0" + SECRET.encode(), 0xA430: SECRET}
    tags[0x8825] = {1: "N", 2: (47.0, 22.0, 36.84), 3: "E", 4: (8.0, 32.0, 30.12), 27: SECRET.encode()}
    return tags


def profile() -> bytes:
    """sRGB under a telling name, as long as the old one."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    name = "sRGB built-in".encode("utf-16-be")
    assert name in plain
    return plain.replace(name, SECRET[: len(name) // 2].encode("utf-16-be"))


def chunks() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", SECRET)
    info.add_text("Comment", SECRET, zip=True)
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    info.add(b"prIv", SECRET.encode(), after_idat=True)
    return info


def telling(kind: str, image: Image.Image | None = None) -> bytes:
    extra: dict[str, Any] = {
        "PNG": {"pnginfo": chunks(), "dpi": (347, 347)},
        "JPEG": {"xmp": XMP, "comment": SECRET, "dpi": (347, 347), "quality": 95},
        "WEBP": {"xmp": XMP, "lossless": True},
    }[kind]
    data = encoded(image or picture(), kind, exif=exif().tobytes(), icc_profile=profile(), **extra)
    return data + SECRET.encode() if kind == "JPEG" else data  # what follows the end of a picture


def is_silent(data: bytes) -> None:
    told = Image.open(io.BytesIO(data))
    told.load()
    words = SECRET.split("-")[0]
    for text in (words.encode(), words.encode("utf-16-be"), words.encode("utf-16-le")):
        assert text not in data
    assert dict(told.getexif()) == {}
    assert told.info.keys() <= OUR_OWN


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_nothing_that_a_picture_tells_is_stored_or_comes_out(
    kind: str, output_format: str, client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    sent = telling(kind)
    assert SECRET.encode() in sent
    answer = client.post(
        "/v1/edits",
        files={"image": ("SECRET.png", sent), "drawn": ("SECRET.png", telling(kind, picture(mode="L")))},
        data={
            "instructions": json.dumps([{"text": "make it red", "mask": "drawn"}, {"text": "make it blue"}]),
            "output_format": output_format,
        },
    )
    assert answer.status_code == 202, answer.text
    run_edit(FakeEngine(), repository, served_blobs, answer.json()["id"])
    record = repository.get(answer.json()["id"])
    assert record is not None
    assert record.status == "succeeded"
    assert {"input-mask-1.png", f"result.{output_format}"} < record.files.keys()
    for name in ("input.png", *record.files):
        data = client.get(f"{answer.json()['urls']['self']}/files/{name}").content
        is_silent(data)
        assert (SOURCE_TYPE in data) == name.startswith("result"), f"{name}: only results are made by a model"
    assert "SECRET" not in record.model_dump_json()
