"""One picture that shows an edit: input, plain InstructPix2Pix, FoI, what changed; below, every region and its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

TILE = 256
GAP, MARGIN, CAPTION, HEADING = 12, 20, 46, 44
TINTS = ((255, 120, 0), (0, 120, 255), (0, 200, 80), (220, 0, 160))
INK, PAPER, QUIET = (28, 30, 36), (250, 250, 248), (105, 108, 116)


@dataclass(frozen=True)
class Tile:
    """A picture, its name, and a second, quieter line."""

    image: Image.Image
    title: str
    note: str = ""


def heat(levels: Image.Image) -> Image.Image:
    """A grey map (0..255) in colour: dark blue is nothing, yellow is most."""
    stops = np.array([[20, 24, 64], [90, 40, 120], [200, 70, 90], [250, 160, 60], [252, 240, 150]], float)
    at = np.asarray(levels.convert("L"), float) / 255 * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    share = (at - low)[..., None]
    return Image.fromarray((stops[low] * (1 - share) + stops[low + 1] * share).astype(np.uint8))


def difference(before: Image.Image, after: Image.Image) -> Image.Image:
    """Where two pictures differ, in colour; the largest channel counts, three times over so that little shows."""
    red, green, blue = ImageChops.difference(before.convert("RGB"), after.convert("RGB")).split()
    largest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return heat(largest.point(lambda level: min(255, 3 * level)))


def tinted(picture: Image.Image, masks: Sequence[Image.Image]) -> Image.Image:
    """Each mask as a tint of its own over the picture in grey; white in the mask is tinted."""
    grey = np.asarray(picture.convert("RGB"), float).mean(axis=2, keepdims=True)
    levels = np.repeat(grey * 0.6, 3, axis=2)
    for mask, tint in zip(masks, cycle(TINTS)):
        inside = np.asarray(mask)[:, :, None] > 0
        levels = np.where(inside, 0.45 * levels + 0.55 * np.array(tint), levels)
    return Image.fromarray(levels.round().astype(np.uint8))


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """One below the other, on the left."""
    canvas = Image.new("RGB", (max(one.width for one in sheets), sum(one.height for one in sheets)), PAPER)
    top = 0
    for one in sheets:
        canvas.paste(one, (0, top))
        top += one.height
    return canvas


def sheet(heading: str, rows: list[list[Tile]], tile_side: int = TILE) -> Image.Image:
    """Rows of captioned tiles under a heading."""
    columns = max(len(row) for row in rows)
    width = 2 * MARGIN + columns * tile_side + (columns - 1) * GAP
    height = HEADING + MARGIN + len(rows) * (tile_side + CAPTION + GAP)
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, 14), heading, fill=INK, font=ImageFont.load_default(20))
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            x = MARGIN + c * (tile_side + GAP)
            y = HEADING + MARGIN // 2 + r * (tile_side + CAPTION + GAP)
            canvas.paste(_fit(tile.image, tile_side), (x, y))
            draw.text((x, y + tile_side + 5), tile.title, fill=INK, font=ImageFont.load_default(15))
            draw.text((x, y + tile_side + 25), tile.note, fill=QUIET, font=ImageFont.load_default(12))
    return canvas


def _fit(image: Image.Image, side: int) -> Image.Image:
    """Into a square tile without distortion; what is enlarged keeps its pixels visible."""
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    resample = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (side, side), PAPER)
    tile.paste(image.convert("RGB").resize(size, resample), ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile
