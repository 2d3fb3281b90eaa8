"""Pictures in and out: PIL <-> tensors, IP2P's size rule, and pasting the input back outside the mask.

What is as large as a caller's picture is worked on in bands of rows: nothing but pictures that are given back takes
memory of that size, and no single call holds the interpreter for long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from foi_core import choices
from foi_core.bands import BAND_PIXELS, bands


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at `size` (width, height)."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """An RGB picture resized to `size` (width, height): float32 (1, 3, height, width) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(resized(image, size), dtype=np.float32))
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def to_image(pixels: Tensor) -> Image.Image:
    """One picture (3, H, W) in [-1, 1] -> RGB of that size."""
    levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def mask_to_image(mask: Tensor, size: tuple[int, int]) -> Image.Image:
    """A binary mask (h, w) -> "L" of `size` (width, height), 255 = may change."""
    levels = (mask > 0.5).to(torch.uint8).mul(255).cpu().numpy()
    return Image.fromarray(levels).resize(size, Image.Resampling.NEAREST)


def cut(soft: Tensor, threshold: float, size: tuple[int, int]) -> Image.Image:
    """A soft map (h, w) upsampled to a picture of `size` (width, height): "L", 255 where it reaches `threshold`."""
    coarse, result = Image.fromarray(soft.float().cpu().numpy()), Image.new("L", size)
    scale = coarse.height / size[1]
    for box in bands(size):
        _, top, width, bottom = box
        rows = (0, top * scale, coarse.width, bottom * scale)
        fine = coarse.resize((width, bottom - top), Image.Resampling.BICUBIC, box=rows)
        result.paste(Image.fromarray((np.asarray(fine) >= threshold).astype(np.uint8) * np.uint8(255)), box)
    return result


def picture_mask(mask: Image.Image) -> Image.Image:
    """A caller's mask made binary: "L", 255 where it is at least 128. The mask itself, if it is so already."""
    levels = mask.convert("L") if mask.mode != "L" else mask
    if not any(levels.histogram()[1:255]):
        return levels
    return levels.point(lambda level: 255 if level >= 128 else 0)


def mask_to_grid(mask: Image.Image, grid: tuple[int, int]) -> Tensor:
    """A picture-sized mask -> binary float32 (h, w) on a coarser `grid`.

    A cell is in when the mask covers at least half as much of it as of the best covered cell around it: for ordinary
    masks that is half of the cell, and a mask thinner than a cell does not vanish.
    """
    height, width = grid
    scale = mask.height / height
    coverage = torch.empty(height, width)
    rows = max(1, int(BAND_PIXELS / mask.width / scale))  # of the grid: whole cells, so that each is in one band
    for first in range(0, height, rows):
        last = min(first + rows, height)
        top, bottom = math.floor(first * scale), min(math.ceil(last * scale), mask.height)
        band = picture_mask(mask.crop((0, top, mask.width, bottom))).convert("F")
        part = (0, first * scale - top, mask.width, min(last * scale - top, band.height))
        shares = band.resize((width, last - first), Image.Resampling.BOX, box=part)
        coverage[first:last] = torch.from_numpy(np.array(shares))
    return ((coverage > 0) & (coverage >= 0.5 * _peak_around(coverage, 1))).float()


def shrunk_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A caller's mask at the working `size` (width, height): "L", 0 or 255. What is thin does not vanish."""
    if mask.size == size:
        return picture_mask(mask)
    return mask_to_image(mask_to_grid(mask, (size[1], size[0])), size)


def union(masks: Sequence[Image.Image]) -> Image.Image:
    """White where any of the masks is white."""
    if len(masks) == 1:
        return masks[0]
    result = masks[0].copy()
    for box in bands(result.size):
        band = result.crop(box)
        for mask in masks[1:]:
            band = ImageChops.lighter(band, mask.crop(box))
        result.paste(band, box)
    return result


def composite(edited: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """`edited` inside `mask`, `original` outside, to the byte, with the soft edge of `choices.FEATHER_SHARE` inside.

    Blurred, a mask is half at its border and whole one radius further in; what is thinner never gets so far, and is
    measured against its own peak.
    """
    radius = max(1, round(min(original.size) * choices.FEATHER_SHARE))
    result = original.copy()
    for box in bands(original.size):
        left, top, right, bottom = box
        # The blur looks one radius around, the peak another one.
        above, below = max(0, top - 2 * radius), min(original.height, bottom + 2 * radius)
        around = mask.crop((left, above, right, below)).filter(ImageFilter.BoxBlur(radius))
        blurred = torch.from_numpy(np.array(around, dtype=np.float32))
        peak = _peak_around(blurred, radius).clamp_min(1e-6)
        inner = ((2 * blurred - peak) / peak).clamp(0, 1).mul(255).round().to(torch.uint8)
        weight = Image.fromarray(inner[top - above : bottom - above].numpy())
        result.paste(edited.crop(box), box, ImageChops.darker(weight, mask.crop(box)))
    return result


def _peak_around(levels: Tensor, radius: int) -> Tensor:
    """The largest value within `radius` in each direction, (H, W)."""
    size = 2 * radius + 1
    across = F.max_pool2d(levels[None], (1, size), stride=1, padding=(0, radius))
    return F.max_pool2d(across, (size, 1), stride=1, padding=(radius, 0))[0]
