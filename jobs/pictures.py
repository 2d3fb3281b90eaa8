"""Hostile bytes in, a plain RGB picture or a binary mask out. Limits are checked from the header, before decoding."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image, ImageCms

from foi_core.spec import MAX_ASPECT, MIN_SIDE

FORMATS = ("PNG", "JPEG", "WEBP")
MASK_LEVEL = 128
MAX_READS = 100_000
"""Pillow walks through a file's headers in Python, piece by piece; a hostile file is all pieces. PNG's usual ones have
8 KB."""
MAX_SCANS = 500
"""Of a JPEG; each, however short, is a pass over the whole picture. Usual ones have 1 or 10."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""
_SRGB = ImageCms.createProfile("sRGB")


class BadPictureError(Exception):
    """What is wrong with it, and what to do; `kind` is the slug of the problem that callers are told."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def read_picture(file: BinaryIO, max_pixels: int) -> Image.Image:
    """RGB: EXIF orientation applied, embedded colour profile converted to sRGB, transparency flattened on white. The
    same bytes give the same picture. Raises BadPictureError."""
    with _reading(max_pixels):
        picture = _flatten(_decode(file, max_pixels), background=255)
    picture.info = {}  # Pillow would write the input's profile and the like into what is saved from it
    return picture


def read_mask(file: BinaryIO, size: tuple[int, int], max_pixels: int) -> Image.Image:
    """ "L", 0 or 255: white may change; transparent counts as black. Must have the picture's `size`."""
    with _reading(max_pixels):
        mask = _flatten(_decode(file, max_pixels), background=0).convert("L")
    if mask.size != size:
        shown = [f"{width}x{height}" for width, height in (mask.size, size)]
        reason = f"the mask is {shown[0]}, the picture {shown[1]} (EXIF orientation applied); send it in that size"
        raise BadPictureError("mask-size-mismatch", reason)
    mask = mask.point(lambda level: 255 if level >= MASK_LEVEL else 0)
    if not mask.getbbox():
        reason = "the mask has no white pixel, so nothing could change; white = may change"
        raise BadPictureError("invalid-parameter", reason)
    mask.info = {}
    return mask


def read_alpha(file: BinaryIO, max_pixels: int) -> Image.Image:
    """ "L": how opaque each pixel is."""
    with _reading(max_pixels):
        return _decode(file, max_pixels).convert("RGBA").getchannel("A")


def to_png(image: Image.Image) -> bytes:
    """Compression level 1: a fifth of the default's time for a few percent more bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@contextmanager
def _reading(max_pixels: int) -> Iterator[None]:
    """Pillow raises anything from OSError to AssertionError on broken files; here all of it means "cannot be read"."""
    try:
        yield
    except BadPictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"the picture has more than {max_pixels} pixels; send a smaller one"
        raise BadPictureError("image-too-many-pixels", reason) from error
    except Exception as error:
        reason = f"not a whole picture in {', '.join(FORMATS)}; it is damaged, cut off or of another format"
        raise BadPictureError("unsupported-image", f"{reason}: save it anew as one of these") from error


def _decode(file: BinaryIO, max_pixels: int) -> Image.Image:
    with _reading(max_pixels):
        _check_scans(file)
        image = Image.open(cast(BinaryIO, _Impatient(file)), formats=FORMATS)
        _check_header(image, max_pixels)
        image.load()
        return _upright(image)


class _Impatient:
    """A file that can be read so many times only."""

    def __init__(self, file: BinaryIO) -> None:
        self._read, self._left = file.read, MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise OSError("the file is in too many pieces")
        return self._read(size)


def _check_scans(file: BinaryIO) -> None:
    data = file.read()
    file.seek(0)
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
        raise BadPictureError("unsupported-image", f"a JPEG of more than {MAX_SCANS} scans; save it anew")


def _upright(image: Image.Image) -> Image.Image:
    """Damaged EXIF is ignored, as browsers do."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, struct.error, OSError):
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _check_header(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        reason = f"{width}x{height} is more than {max_pixels} pixels; send a smaller one"
        raise BadPictureError("image-too-many-pixels", reason)
    if min(width, height) < MIN_SIDE:
        raise BadPictureError(
            "invalid-parameter", f"{width}x{height} is too small; each side needs at least {MIN_SIDE} pixels"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadPictureError(
            "invalid-parameter", f"{width}x{height} is too narrow; one side may be at most {MAX_ASPECT} times the other"
        )
    # JPEG's "frames" are a camera's own previews of the one picture (MPO).
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise BadPictureError("unsupported-image", "animated pictures cannot be edited; send one frame")


def _flatten(image: Image.Image, background: int) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image)
    if not image.has_transparency_data:
        return _srgb(image)
    with_alpha = image.convert("RGBA")
    opaque = with_alpha.convert("RGB")
    opaque.info["icc_profile"] = image.info.get("icc_profile")
    canvas = Image.new("RGB", image.size, (background,) * 3)
    canvas.paste(_srgb(opaque), mask=with_alpha.getchannel("A"))
    return canvas


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey -> "L"; Pillow's own conversion would clip at 255."""
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def _srgb(image: Image.Image) -> Image.Image:
    """A damaged profile, or one of another colour model than the pixels, is ignored, as browsers do."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
            assert converted is not None
            return converted
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")
