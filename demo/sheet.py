"""One picture that shows an edit: input, plain InstructPix2Pix, FoI, what changed; below, every region and its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

TILE = 256
GAP, MARGIN, CAPTION, HEADING = 12, 20, 46, 44
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


def sheet(heading: str, rows: list[list[Tile]]) -> Image.Image:
    """Rows of captioned tiles under a heading."""
    columns = max(len(row) for row in rows)
    width = 2 * MARGIN + columns * TILE + (columns - 1) * GAP
    height = HEADING + MARGIN + len(rows) * (TILE + CAPTION + GAP)
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, 14), heading, fill=INK, font=ImageFont.load_default(20))
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            x = MARGIN + c * (TILE + GAP)
            y = HEADING + MARGIN // 2 + r * (TILE + CAPTION + GAP)
            canvas.paste(_fit(tile.image), (x, y))
            draw.text((x, y + TILE + 5), tile.title, fill=INK, font=ImageFont.load_default(15))
            draw.text((x, y + TILE + 25), tile.note, fill=QUIET, font=ImageFont.load_default(12))
    return canvas


def _fit(image: Image.Image) -> Image.Image:
    """Into a square tile without distortion; what is enlarged keeps its pixels visible."""
    factor = TILE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    resample = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (TILE, TILE), PAPER)
    tile.paste(image.convert("RGB").resize(size, resample), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile
