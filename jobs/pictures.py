"""Hostile bytes in, a plain RGB picture or a binary mask out. Limits are checked from the header, before decoding."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, WebPImagePlugin

from foi_core.sizes import is_model_size
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
_SIDEWAYS = (5, 6, 7, 8)
_BYTES_PER_PIXEL = {"PNG": 8, "JPEG": 12, "MPO": 12, "WEBP": 12}
"""At the peak of reading one: Pillow's pixels in the file's mode and in RGB, 4 each; or those and a progressive JPEG's
coefficients, 8 in CMYK; or the three frames, of 4 each, of a WEBP's decoder."""
BAND_PIXELS = 2**18
CHUNK = 2**20
_WHITE_LEVELS = [255 * (level >= MASK_LEVEL) for level in range(256)]
_TRANSPARENT_LEVELS = [255 * (level == 0) for level in range(256)]
_SRGB = ImageCms.createProfile("sRGB")

Image.MAX_IMAGE_PIXELS = None  # FOI_MAX_PIXELS is the limit, read from the header and before anything is decoded
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 2**20


class BadPictureError(Exception):
    """What is wrong with it, and what to do; `kind` is the slug of the problem that callers are told."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def read_memory(file: BinaryIO, max_pixels: int) -> int:
    """How many bytes it takes at most to read the picture. Checks all that can be seen without decoding, and leaves the
    file at its beginning. Raises BadPictureError."""
    with _opened(file, max_pixels) as image:
        width, height = image.size
        memory = width * height * _BYTES_PER_PIXEL[image.format or ""]
    file.seek(0)
    return memory


def check_picture(file: BinaryIO, max_pixels: int) -> tuple[int, int]:
    """Decodes it, to see that it is whole. The size, upright. Leaves the file at its beginning. Raises
    BadPictureError."""
    with _opened(file, max_pixels) as image:
        width, height = image.size
        image.draft(None, (1, 1))  # a JPEG is read to its end all the same, and needs an eighth of its sides
        _decoded(image)
        turned = _orientation(image) in _SIDEWAYS
    file.seek(0)
    return (height, width) if turned else (width, height)


def read_picture(file: BinaryIO, max_pixels: int) -> Image.Image:
    """RGB: EXIF orientation applied, embedded colour profile converted to sRGB, transparency flattened on white. The
    same bytes give the same picture. Raises BadPictureError."""
    with _opened(file, max_pixels) as image:
        picture = _flatten(_decoded(image), background=255)
        orientation = _orientation(image)
    picture = _upright(picture, orientation)
    picture.info = {}  # Pillow would write the input's profile and the like into what is saved from it
    return picture


def read_mask(file: BinaryIO, size: tuple[int, int], max_pixels: int) -> Image.Image:
    """ "1", white may change; transparent counts as black. Has the picture's `size`, or comes in one of the sizes that
    a model works at (`foi_core.sizes`) and is brought to it. Raises BadPictureError."""
    with _opened(file, max_pixels) as image:
        mask = _flatten(_decoded(image), background=0, finish=_black_or_white)
        orientation = _orientation(image)
    mask = _upright(mask, orientation)
    if mask.size != size and not is_model_size(mask.size, size):
        shown = [f"{width}x{height}" for width, height in (mask.size, size)]
        reason = (
            f"the mask is {shown[0]}, the picture {shown[1]} (EXIF orientation applied); send it in that size, or in "
            "that of a mask which an edit of the picture with output_size=model returned"
        )
        raise BadPictureError("mask-size-mismatch", reason)
    mask = mask.resize(size, Image.Resampling.NEAREST) if mask.size != size else mask
    if not mask.getbbox():
        reason = "the mask has no white pixel, so nothing could change; white = may change"
        raise BadPictureError("invalid-parameter", reason)
    mask.info = {}
    return mask


def read_transparent(file: BinaryIO, max_pixels: int) -> Image.Image:
    """ "1", white where the picture is fully transparent. Raises BadPictureError."""
    with _opened(file, max_pixels) as image:
        found = _banded(_decoded(image), "1", _is_transparent)
        orientation = _orientation(image)
    found = _upright(found, orientation)
    found.info = {}
    return found


def to_png(image: Image.Image) -> bytes:
    """As `write_png` writes it."""
    buffer = io.BytesIO()
    write_png(image, buffer)
    return buffer.getvalue()


def write_png(image: Image.Image, file: BinaryIO) -> None:
    """Compression level 1: a fifth of the default's time for a few percent more bytes."""
    image.save(file, "PNG", compress_level=1)


@contextmanager
def _reading() -> Iterator[None]:
    """Pillow raises anything from OSError to AssertionError on broken files; here all of it means "cannot be read"."""
    try:
        yield
    except BadPictureError:
        raise
    except Exception as error:
        reason = f"not a whole picture in {', '.join(FORMATS)}; it is damaged, cut off or of another format"
        raise BadPictureError("unsupported-image", f"{reason}: save it anew as one of these") from error


@contextmanager
def _opened(file: BinaryIO, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """A file whose header is all right."""
    with _reading():
        _check_scans(file)
        _check_canvas(file, max_pixels)
        with Image.open(cast(BinaryIO, _Impatient(file)), formats=FORMATS) as image:
            _check_header(image, max_pixels)
            yield image


def _decoded(image: ImageFile.ImageFile) -> Image.Image:
    """The pixels, in the file's own mode. Of a WEBP without Pillow's `load`, which holds the picture four times at
    once; the decoder, which holds it twice, is let go of as soon as it is done."""
    if not isinstance(image, WebPImagePlugin.WebPImageFile):
        image.load()
        if image.mode == "P" and image.palette is None and not image.has_transparency_data:
            raise OSError("there is no palette")
        return image
    decoder: Any = image._decoder
    frame = decoder.get_next()
    if frame is None:
        raise OSError("the frame cannot be decoded")
    image._decoder = decoder = None
    pixels = Image.frombuffer(image.rawmode, image.size, frame[0], "raw", image.rawmode, 0, 1)
    pixels.info = image.info
    return pixels


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
    begin, scans, chunk = file.read(2), 0, b""
    while begin == b"\xff\xd8" and (more := file.read(CHUNK)):
        chunk = chunk[-1:] + more
        scans += chunk.count(b"\xff\xda")
    file.seek(0)
    if scans > MAX_SCANS:
        raise BadPictureError("unsupported-image", f"a JPEG of more than {MAX_SCANS} scans; save it anew")


def _orientation(image: Image.Image) -> int | None:
    """Of a picture that is decoded: a PNG's may come after its pixels, and is looked for there. Damaged EXIF is
    ignored, as browsers do."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, struct.error, OSError):
        return None
    return found if found in _UPRIGHT else None


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    return image if orientation is None else image.transpose(_UPRIGHT[orientation])


def _check_canvas(file: BinaryIO, max_pixels: int) -> None:
    """Pillow makes a WEBP's canvas as soon as it opens it (RFC 9649, sections 2.4 to 2.7)."""
    head = file.read(30).ljust(30, b"\0")
    file.seek(0)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return
    if head[12:16] == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif head[12:16] == b"VP8L":
        sides = int.from_bytes(head[21:25], "little")
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_pixels(width, height, max_pixels)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        reason = f"{width}x{height} is more than {max_pixels} pixels; send a smaller one"
        raise BadPictureError("image-too-many-pixels", reason)


def _check_header(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    _check_pixels(width, height, max_pixels)
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


Convert = Callable[[Image.Image], Image.Image]


def _flatten(image: Image.Image, background: int, finish: Convert | None = None) -> Image.Image:
    """sRGB on a `background` of this level; `finish` makes something else of it."""
    opaque = not image.has_transparency_data
    to_srgb = _profile_conversion(image, image.mode if opaque and image.mode != "RGBX" else "RGB")

    def convert(band: Image.Image) -> Image.Image:
        if band.mode.startswith(("I", "F")):
            flat = _eight_bit(band).convert("RGB")
        elif opaque:
            flat = to_srgb(_as_rgb(band)) if to_srgb else band.convert("RGB")
        else:
            with_alpha = band.convert("RGBA")
            flat = Image.new("RGB", band.size, (background,) * 3)
            colors = with_alpha.convert("RGB")
            flat.paste(to_srgb(colors) if to_srgb else colors, mask=with_alpha.getchannel("A"))
        return finish(flat) if finish else flat

    return _banded(image, "1" if finish else "RGB", convert)


def _banded(image: Image.Image, mode: str, convert: Convert) -> Image.Image:
    """What `convert` makes of the picture, in `mode`, from some rows at a time: nothing else is as large as it."""
    width, height = image.size
    result, rows = Image.new(mode, image.size), max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        result.paste(convert(image.crop(box)), box)
    return result


def _black_or_white(band: Image.Image) -> Image.Image:
    return band.convert("L").point(_WHITE_LEVELS, "1")


def _is_transparent(band: Image.Image) -> Image.Image:
    return band.convert("RGBA").getchannel("A").point(_TRANSPARENT_LEVELS, "1")


def _as_rgb(band: Image.Image) -> Image.Image:
    return band.convert("RGB") if band.mode == "RGBX" else band


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey -> "L"; Pillow's own conversion would clip at 255."""
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def _profile_conversion(image: Image.Image, mode: str) -> Convert | None:
    """From the embedded profile's colors to sRGB, for bands of `mode`. A damaged profile, or one of another color model
    than the pixels, is ignored, as browsers do."""
    profile = image.info.get("icc_profile")
    if not profile or mode not in ("RGB", "CMYK", "L"):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None

    def convert(band: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(band, transform)
        assert converted is not None
        return converted

    return convert
