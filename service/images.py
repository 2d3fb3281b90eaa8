"""Hostile bytes in, a plain RGB picture or a binary mask out. Limits are checked from the header, before decoding."""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from foi_core.spec import MAX_ASPECT, MIN_SIDE
from service.problems import Problem

FORMATS = ("PNG", "JPEG", "WEBP")
MASK_LEVEL = 128
_SRGB = ImageCms.createProfile("sRGB")


def read_picture(file: BinaryIO, max_pixels: int, part: str = "image") -> Image.Image:
    """RGB: EXIF orientation applied, embedded colour profile converted to sRGB, transparency flattened on white."""
    picture = _flatten(_decode(file, max_pixels, part), background=255)
    picture.info = {}  # Pillow would write the input's profile and the like into what is saved from it
    return picture


def read_mask(file: BinaryIO, size: tuple[int, int], max_pixels: int, part: str) -> Image.Image:
    """ "L", 0 or 255: white may change; transparent counts as black. Must have the picture's `size`."""
    mask = _flatten(_decode(file, max_pixels, part), background=0).convert("L")
    if mask.size != size:
        shown = [f"{width}x{height}" for width, height in (mask.size, size)]
        raise Problem(
            "mask-size-mismatch", f"{part}: the mask is {shown[0]}, the picture {shown[1]} (EXIF orientation applied)"
        )
    return mask.point(lambda level: 255 if level >= MASK_LEVEL else 0)


def to_png(image: Image.Image) -> bytes:
    """Compression level 1: a fifth of the default's time for a few percent more bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _decode(file: BinaryIO, max_pixels: int, part: str) -> Image.Image:
    """Pillow raises anything from OSError to IndexError on broken files; here all of it means "cannot be read"."""
    try:
        image = Image.open(file, formats=FORMATS)
        _check_header(image, max_pixels, part)
        image.load()
        return ImageOps.exif_transpose(image)
    except Problem:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Problem("image-too-many-pixels", f"{part}: at most {max_pixels} pixels") from error
    except Exception as error:
        raise Problem("unsupported-image", f"{part}: not a whole {', '.join(FORMATS)} picture") from error


def _check_header(image: Image.Image, max_pixels: int, part: str) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise Problem("image-too-many-pixels", f"{part}: {width}x{height} is more than {max_pixels} pixels")
    if min(width, height) < MIN_SIDE:
        _refuse_size(part, f"{width}x{height} is too small; each side needs at least {MIN_SIDE} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        _refuse_size(part, f"{width}x{height} is too narrow; one side may be at most {MAX_ASPECT} times the other")
    # JPEG's "frames" are a camera's own previews of the one picture (MPO).
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise Problem("unsupported-image", f"{part}: animated pictures cannot be edited; send one frame")


def _refuse_size(part: str, detail: str) -> None:
    raise Problem("invalid-parameter", f"{part}: {detail}", [{"pointer": f"/{part}", "detail": detail}])


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
