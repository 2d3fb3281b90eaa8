"""Whatever a picture comes as, the stored input is plain 8-bit RGB that looks like it."""

from __future__ import annotations

import io
import json

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms

from jobs.blobs import BlobStore
from jobs.repository import EditRepository
from tests.support import FakeEngine, encoded, picture, run_edit

KEEP = {"lossless": True}


def stored_input(client: httpx.Client, data: bytes) -> Image.Image:
    answer = client.post("/v1/edits", files={"image": data}, data={"instruction": "make the ball red"})
    assert answer.status_code == 202, answer.text
    image = Image.open(io.BytesIO(client.get(answer.json()["urls"]["self"] + "/files/input.png").content))
    assert image.mode == "RGB"
    assert image.info == {}, "metadata of the input is not kept"
    return image


def sixteen_bit() -> bytes:
    levels = np.asarray(picture(mode="L")).astype(np.uint16) * 256
    return encoded(Image.fromarray(levels))


@pytest.mark.parametrize(
    ("data", "expected", "tolerance"),
    [
        (encoded(picture()), picture(), 0),
        (encoded(picture(), "WEBP", **KEEP), picture(), 0),
        (encoded(Image.new("RGB", (48, 32), "teal"), "JPEG"), Image.new("RGB", (48, 32), "teal"), 3),
        (encoded(picture(mode="L")), picture(mode="L"), 0),
        (encoded(picture(mode="1")), picture(mode="1"), 0),
        (encoded(picture(mode="P")), picture(mode="P"), 0),
        (encoded(picture(mode="RGBA")), picture(), 0),
        (encoded(picture(mode="LA")), picture(mode="L"), 0),
        (sixteen_bit(), picture(mode="L"), 0),
        (encoded(Image.new("CMYK", (48, 32), (255, 0, 0, 0)), "JPEG"), Image.new("RGB", (48, 32), (0, 255, 255)), 3),
    ],
    ids=["png", "webp", "jpeg", "grey", "bilevel", "palette", "rgba", "grey-alpha", "16-bit", "cmyk"],
)
def test_every_mode_becomes_rgb(client: httpx.Client, data: bytes, expected: Image.Image, tolerance: int) -> None:
    found = np.asarray(stored_input(client, data), dtype=int)
    assert np.abs(found - np.asarray(expected.convert("RGB"), dtype=int)).max() <= tolerance


def test_transparency_is_flattened_on_white(client: httpx.Client) -> None:
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    palette = picture(mode="P")
    assert stored_input(client, encoded(clear)).getpixel((5, 5)) == (255, 255, 255)
    spot = palette.getpixel((3, 3))
    assert stored_input(client, encoded(palette, transparency=spot)).getpixel((3, 3)) == (255, 255, 255)


def test_the_exif_orientation_is_applied(client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    found = stored_input(client, encoded(picture(), "PNG", exif=exif))
    assert found.tobytes() == picture().transpose(Image.Transpose.ROTATE_270).tobytes()


def test_an_embedded_profile_is_converted_to_srgb(client: httpx.Client) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = stored_input(client, encoded(picture(), icc_profile=srgb))
    assert np.abs(np.asarray(same, dtype=int) - np.asarray(picture(), dtype=int)).max() <= 1
    swapped = srgb.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")  # its red is blue
    for mode in ("RGB", "RGBA"):
        red = Image.new(mode, (32, 32), "red")
        assert stored_input(client, encoded(red, icc_profile=swapped)).getpixel((5, 5)) == (0, 0, 255)


def test_a_damaged_or_foreign_profile_is_ignored(client: httpx.Client) -> None:
    foreign = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"nonsense", foreign):
        assert stored_input(client, encoded(picture(), icc_profile=profile)).tobytes() == picture().tobytes()


def test_masks_are_made_binary_and_belong_to_their_sub_instruction(client: httpx.Client) -> None:
    grey = Image.linear_gradient("L").resize((48, 32))
    answer = client.post(
        "/v1/edits",
        files={"image": encoded(picture()), "where": encoded(grey)},
        data={"instructions": json.dumps([{"text": "make the ball red"}, {"text": "remove the hat", "mask": "where"}])},
    )
    edit = answer.json()
    assert answer.status_code == 202, answer.text
    assert [part["has_mask"] for part in edit["input"]["instructions"]] == [False, True]
    mask = Image.open(io.BytesIO(client.get(edit["urls"]["self"] + "/files/input-mask-1.png").content))
    expected = np.asarray(grey) >= 128
    assert mask.mode == "1"
    assert (np.asarray(mask) == expected).all()


def test_transparent_parts_of_a_mask_may_not_change(client: httpx.Client) -> None:
    drawing = Image.new("RGBA", (48, 32), (255, 255, 255, 0))
    drawing.paste((255, 255, 255, 255), (0, 0, 10, 10))
    edit = client.post(
        "/v1/edits",
        files={"image": encoded(picture()), "m": encoded(drawing)},
        data={"instructions": '[{"text": "make the ball red", "mask": "m"}]'},
    ).json()
    mask = Image.open(io.BytesIO(client.get(edit["urls"]["self"] + "/files/input-mask-1.png").content))
    assert mask.getbbox() == (0, 0, 10, 10)


def test_a_mask_of_output_size_model_is_taken_back_for_the_same_picture(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    image = encoded(picture(80, 48))
    fields = {"instruction": "make the ball red", "output_size": "model"}
    edit = client.post("/v1/edits", files={"image": image}, data=fields).json()
    run_edit(FakeEngine(), repository, served_blobs, edit["id"])
    returned = client.get(client.get(edit["urls"]["self"]).json()["masks"][0]["url"]).content
    smaller = Image.open(io.BytesIO(returned))
    assert smaller.size == (64, 64)
    data = {"instructions": json.dumps([{"text": "make the ball red", "mask": "m"}])}
    answer = client.post("/v1/edits", files={"image": image, "m": returned}, data=data)
    assert answer.status_code == 202, answer.text
    kept = Image.open(io.BytesIO(client.get(answer.json()["urls"]["self"] + "/files/input-mask-1.png").content))
    expected = smaller.convert("1").resize((80, 48), Image.Resampling.NEAREST)
    assert (kept.size, kept.tobytes()) == ((80, 48), expected.tobytes())
    other = client.post("/v1/edits", files={"image": image, "m": encoded(Image.new("L", (64, 128), 255))}, data=data)
    assert other.json()["type"] == "/problems/mask-size-mismatch"
