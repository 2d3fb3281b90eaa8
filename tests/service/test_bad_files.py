"""Files that are broken, hostile or only odd: each is refused for what it is, or becomes a plain picture."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms

from jobs import pictures
from service import images
from service.problems import Problem
from tests.service.test_bad_input import ONE, PNG, Stored, chunk, instructions, png_of, refused
from tests.support import encoded, picture

SIGNATURE, HEADER, PIXELS = PNG[:8], PNG[8:33], PNG[33:]
JPEG, WEBP = encoded(picture(), "JPEG"), encoded(picture(), "WEBP")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BLACK = encoded(Image.new("L", (48, 32)))
MAX_GROWTH_BYTES = 12 * 2**20


def with_chunks(*chunks: bytes) -> bytes:
    """A PNG with these before its pixels."""
    return SIGNATURE + HEADER + b"".join(chunks) + PIXELS


def segment(number: int, payload: bytes = b"") -> bytes:
    """APPn of a JPEG."""
    return bytes((0xFF, 0xE0 + number)) + struct.pack(">H", len(payload) + 2) + payload


def with_segments(*segments: bytes) -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def riff_size(size: int) -> bytes:
    """A WebP whose header lies about its length."""
    return WEBP[:4] + struct.pack("<I", size) + WEBP[8:]


def webp_canvas(side: int) -> bytes:
    """A WebP that promises a canvas of `side` x `side`."""
    canvas = struct.pack("<I", side - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + canvas + WEBP[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG that goes over its picture once more and once more, in ten bytes each."""
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last : last + 10] * count + data[-2:]


def exif(orientation: bytes, kind: int = 3) -> bytes:
    return b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHI", 0x0112, kind, 1) + orientation.ljust(4, b"\0") + bytes(4)


def bare_png(depth: int, colour: int, *more: bytes) -> bytes:
    """64x64 of this depth and colour type; `more` chunks come before the pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = (b"\0" + b"\x80" * (64 * channels * depth // 8)) * 64
    header = struct.pack(">IIBBBBB", 64, 64, depth, colour, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return SIGNATURE + b"".join(chunks)


INFLATES = zlib.compress(bytes(50_000_000), 9)
REFUSED: dict[str, tuple[int, str, bytes]] = {
    "only a signature": (415, "unsupported-image", SIGNATURE),
    "a jpeg's first bytes": (415, "unsupported-image", JPEG[:4]),
    "one zero byte": (415, "unsupported-image", b"\0"),
    "100 kB of zeros": (415, "unsupported-image", bytes(100_000)),
    "png cut in its header": (415, "unsupported-image", PNG[:20]),
    "png without pixels": (415, "unsupported-image", SIGNATURE + HEADER + chunk(b"IEND", b"")),
    "png with a wrong checksum": (415, "unsupported-image", PNG[:29] + bytes(4) + PNG[33:]),
    "png of 7 bits": (415, "unsupported-image", PNG[:24] + b"\7" + PNG[25:]),
    "no palette": (415, "unsupported-image", bare_png(8, 3)),
    "jpeg magic, png body": (415, "unsupported-image", JPEG[:3] + PNG[3:]),
    "png magic, jpeg body": (415, "unsupported-image", SIGNATURE + JPEG),
    "webp magic, nothing in it": (415, "unsupported-image", b"RIFF\4\0\0\0WEBP"),
    "webp that says it is short": (415, "unsupported-image", riff_size(10)),
    "webp that says it is long": (415, "unsupported-image", riff_size(10**9)),
    "webp with a chunk beyond its end": (415, "unsupported-image", WEBP[:16] + b"\xf0\xff\xff\xff" + WEBP[20:]),
    "animated webp": (
        415,
        "unsupported-image",
        encoded(picture(), "WEBP", save_all=True, append_images=[Image.new("RGB", (48, 32))]),
    ),
    "pdf": (415, "unsupported-image", encoded(picture(), "PDF")),
    "ico": (415, "unsupported-image", encoded(picture(), "ICO")),
    "ppm": (415, "unsupported-image", encoded(picture(), "PPM")),
    "html": (415, "unsupported-image", b"<!doctype html><img src='image.png'>"),
    "script after a comment": (415, "unsupported-image", b"\x89PNG/*\r\n*/alert(1)"),
    "xml with an entity": (415, "unsupported-image", b'<!DOCTYPE s [<!ENTITY a SYSTEM "/etc/passwd">]><svg>&a;</svg>'),
    "zip": (415, "unsupported-image", b"PK\3\4" + bytes(100)),
    "gzip of a png": (415, "unsupported-image", zlib.compress(PNG, wbits=31)),
    "zTXt that inflates": (415, "unsupported-image", with_chunks(chunk(b"zTXt", b"a\0\0" + INFLATES))),
    "iTXt that inflates": (415, "unsupported-image", with_chunks(chunk(b"iTXt", b"a\0\1\0\0\0" + INFLATES))),
    "profile that inflates": (415, "unsupported-image", with_chunks(chunk(b"iCCP", b"a\0\0" + INFLATES))),
    "zTXt after the pixels": (415, "unsupported-image", PNG[:-12] + chunk(b"zTXt", b"a\0\0" + INFLATES) + PNG[-12:]),
    "60,000 segments": (415, "unsupported-image", with_segments(segment(9) * 60_000)),
    "20,000 scans": (415, "unsupported-image", jpeg_scans(20_000)),
    "canvas of 268 MP": (422, "image-too-many-pixels", webp_canvas(2**14 - 1)),
    "solid webp of 9 MP": (422, "image-too-many-pixels", encoded(Image.new("RGB", (3000, 3000)), "WEBP")),
    "bilevel of 100 MP": (422, "image-too-many-pixels", encoded(Image.new("1", (10_000, 10_000)))),
    "jpeg of 4 GP": (
        422,
        "image-too-many-pixels",
        JPEG.replace(struct.pack(">HH", 32, 48), struct.pack(">HH", 65_000, 65_000)),
    ),
}
ACCEPTED: dict[str, bytes] = {
    "cmyk": encoded(picture(mode="CMYK"), "JPEG"),
    "progressive": encoded(picture(), "JPEG", progressive=True),
    "some scans": jpeg_scans(20),
    "bilevel": encoded(picture(mode="1")),
    **{f"png of 16 bits, colour type {colour}": bare_png(16, colour) for colour in (0, 2, 4, 6)},
    "png of 1 bit": bare_png(1, 0),
    "palette too short": bare_png(8, 3, chunk(b"PLTE", bytes(3))),
    "transparency without a palette": bare_png(8, 3, chunk(b"tRNS", b"\0")),
    "png with a length beyond its end": PNG[:33] + b"\x7f\xff\xff\xff" + PNG[37:],
    "more pixels than promised": with_chunks()[:-12] + chunk(b"IDAT", bytes(1000)) + PNG[-12:],
    "exif of 60 kB": with_segments(segment(1, b"Exif\0\0" + exif(b"\0\1") + bytes(60_000))),
    "orientation 99": with_segments(segment(1, b"Exif\0\0" + exif(b"\0\x63"))),
    "orientation in words": with_segments(segment(1, b"Exif\0\0" + exif(b"six", kind=2))),
    "exif that is none": with_chunks(chunk(b"eXIf", b"nonsense")),
    "exif that points beyond its end": with_segments(segment(1, b"Exif\0\0MM\0*\x7f\xff\xff\xff")),
    "profile of 300 kB": with_segments(*[segment(2, b"ICC_PROFILE\0\1\5" + bytes(60_000))] * 5),
    "profile cut off": encoded(picture(), icc_profile=SRGB[:300]),
    "profile of noise": encoded(picture(), icc_profile=bytes(range(256)) * 20),
    "multi-picture index that is none": with_segments(segment(2, b"MPF\0nonsense")),
    "300 kB of segments": with_segments(*[segment(9, bytes(60_000))] * 5),
    "300 kB of text": with_chunks(chunk(b"iTXt", b"a\0\0\0\0\0" + b"x" * 300_000)),
    "zTXt of noise": with_chunks(chunk(b"zTXt", b"a\0\0nonsense")),
    "png, then a zip": PNG + b"PK\3\4secret" + bytes(100),
    "jpeg, then a zip": JPEG + b"PK\3\4secret" + bytes(100),
    "webp, then a zip": WEBP + b"PK\3\4secret" + bytes(100),
    "png with html in its text": with_chunks(chunk(b"tEXt", b"Comment\0<script>secret</script>")),
    "jpeg with php in its comment": JPEG[:2] + b"\xff\xfe\0\x0f<?php secret" + JPEG[2:],
    "png with a thumbnail's address": with_chunks(chunk(b"tEXt", b"secret\0file:///etc/passwd")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_file_is_refused_for_what_it_is(client: httpx.Client, stored: Stored, name: str) -> None:
    status, slug, data = REFUSED[name]
    before = stored()
    problem = refused(client.post("/v1/edits", files={"image": data}, data=ONE), status, slug)
    assert problem["detail"].startswith("image: ")
    assert stored() == before


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_file_becomes_a_plain_picture(client: httpx.Client, name: str) -> None:
    answer = client.post("/v1/edits", files={"image": ACCEPTED[name]}, data=ONE)
    assert answer.status_code == 202, answer.text
    kept = client.get(f"{answer.json()['urls']['self']}/files/input.png").content
    image = Image.open(io.BytesIO(kept))
    assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
    assert b"secret" not in kept


def test_damaged_exif_does_not_keep_the_rest_of_it_from_being_obeyed() -> None:
    beyond_its_end = struct.pack(">HHII", 0x8769, 4, 1, 2**31)
    tags = exif(b"\0\6").replace(b"\x08\0\1", b"\x08\0\2")[:-4] + beyond_its_end + bytes(4)
    turned = images.told_of(
        "image", pictures.read_picture, io.BytesIO(with_segments(segment(1, b"Exif\0\0" + tags))), 10_000
    )
    assert turned.size == (32, 48)


MASKS: dict[str, tuple[int, str, bytes]] = {
    "no white pixel": (422, "invalid-parameter", BLACK),
    "grey, but dark": (422, "invalid-parameter", encoded(Image.new("L", (48, 32), 127))),
    "white, but transparent": (422, "invalid-parameter", encoded(Image.new("LA", (48, 32), (255, 0)))),
    "turned": (422, "mask-size-mismatch", encoded(picture().transpose(Image.Transpose.ROTATE_90))),
    "one pixel": (422, "invalid-parameter", encoded(Image.new("L", (1, 1), 255))),
    "truncated": (415, "unsupported-image", PNG[:-100]),
    "damaged in the middle": (415, "unsupported-image", PNG[:-2000] + bytes(2000)),
    "zero bytes": (415, "unsupported-image", b""),
    "gif": (415, "unsupported-image", encoded(picture(), "GIF")),
    "animated": (415, "unsupported-image", encoded(picture(), save_all=True, append_images=[picture(mode="L")])),
    "too many pixels": (422, "image-too-many-pixels", png_of(9000, 9000)),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_bad_mask_is_refused_by_its_name(client: httpx.Client, stored: Stored, name: str) -> None:
    status, slug, mask = MASKS[name]
    before = stored()
    data = instructions({"text": "make the ball red"}, {"text": "remove the hat", "mask": "where"})
    problem = refused(client.post("/v1/edits", files={"image": PNG, "where": mask}, data=data), status, slug)
    assert problem["detail"].startswith("where: ")
    assert [error["pointer"] for error in problem.get("errors", [])] == ["/where"] * (slug == "invalid-parameter")
    assert stored() == before


def test_a_mask_keeps_nothing_but_its_pixels(client: httpx.Client) -> None:
    mask = encoded(Image.new("RGB", (48, 32), "white"), icc_profile=SRGB)
    data = instructions({"text": "make the ball red", "mask": "where"})
    edit = client.post("/v1/edits", files={"image": PNG, "where": mask}, data=data).json()
    kept = Image.open(io.BytesIO(client.get(f"{edit['urls']['self']}/files/input-mask-1.png").content))
    assert (kept.mode, kept.info) == ("1", {})
    assert np.asarray(kept).all()


def peak_growth(call: Callable[[], object]) -> int:
    """By how many bytes the process grows at most while it does this (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")

    def memory(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

    before = memory("VmRSS")
    call()
    return memory("VmHWM") - before


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "bomb",
    [
        png_of(12_000, 12_000),
        png_of(65_000, 65_000),
        REFUSED["canvas of 268 MP"][2],
        REFUSED["bilevel of 100 MP"][2],
        REFUSED["jpeg of 4 GP"][2],
        REFUSED["zTXt that inflates"][2],
        encoded(Image.new("RGB", (7000, 7000)), "WEBP"),
        with_chunks(chunk(b"prVt", b"") * 200_000),
    ],
    ids=["144 MP", "4 GP", "webp canvas", "bilevel", "jpeg", "text", "webp", "pieces"],
)
def test_a_bomb_is_refused_before_it_takes_memory(bomb: bytes) -> None:
    file = io.BytesIO(bomb)

    def refuse() -> None:
        with pytest.raises(Problem):
            images.told_of("image", pictures.read_picture, file, 40_000_000)

    assert peak_growth(refuse) < MAX_GROWTH_BYTES


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_whatever_happened_to_a_file_it_is_a_picture_or_a_problem_and_the_check_says_which(kind: str) -> None:
    dice = random.Random(kind)
    for _ in range(400):
        damaged = bytearray(encoded(picture(mode="P" if kind == "PNG" else "RGB"), kind, icc_profile=SRGB))
        for _ in range(dice.choice((1, 3, 10))):
            damaged[dice.randrange(min(len(damaged), dice.choice((40, 400, 4000))))] = dice.choice((0, 255, 1))
        file, checked = io.BytesIO(_with_checksums(bytes(damaged))), None
        with suppress(pictures.BadPictureError):
            checked = pictures.check_picture(file, 100_000)
        file.seek(0)
        if checked is None:
            with pytest.raises(Problem):
                images.told_of("image", pictures.read_picture, file, 100_000)
        else:
            found = images.told_of("image", pictures.read_picture, file, 100_000)
            assert (found.mode, found.info, found.size) == ("RGB", {}, checked)


def _with_checksums(png: bytes) -> bytes:
    """So that what is inside a PNG's chunks is looked at, and not only that it has changed."""
    if not png.startswith(SIGNATURE):
        return png
    mended, at = bytearray(SIGNATURE), 8
    while len(png) >= at + 12 and (size := int.from_bytes(png[at : at + 4])) <= len(png) - at - 12:
        mended += chunk(png[at + 4 : at + 8], png[at + 8 : at + 8 + size])
        at += 12 + size
    return bytes(mended) + png[at:]
