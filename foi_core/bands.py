"""Pictures as large as their callers sent them are worked on in bands of rows. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

BAND_PIXELS = 2**21


def bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of about BAND_PIXELS each, which cover a picture of `size` (width, height)."""
    width, height = size
    rows = max(1, BAND_PIXELS // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def area(mask: Image.Image) -> float:
    """The share of a mask ("L") that is not black."""
    return 1 - mask.histogram()[0] / (mask.width * mask.height)
