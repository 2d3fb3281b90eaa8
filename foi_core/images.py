"""Pictures in and out: PIL <-> tensors, IP2P's size rule, and pasting the input back outside the mask."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from foi_core import choices


def to_tensor(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """An RGB picture resized to `size` (width, height): float32 (1, 3, height, width) in [-1, 1]."""
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def to_image(pixels: Tensor, size: tuple[int, int]) -> Image.Image:
    """One picture (3, H, W) in [-1, 1] -> RGB of `size` (width, height)."""
    levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    image = Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def mask_to_image(mask: Tensor, size: tuple[int, int]) -> Image.Image:
    """A binary mask (h, w) -> "L" of `size` (width, height), 255 = may change."""
    levels = (mask > 0.5).to(torch.uint8).mul(255).cpu().numpy()
    return Image.fromarray(levels).resize(size, Image.Resampling.NEAREST)


def cut(soft: Tensor, threshold: float, size: tuple[int, int]) -> Image.Image:
    """A soft map (h, w) upsampled to a picture of `size` (width, height): "L", 255 where it reaches `threshold`."""
    fine = Image.fromarray(soft.float().cpu().numpy()).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(fine) >= threshold).astype(np.uint8) * np.uint8(255))


def picture_mask(mask: Image.Image) -> Image.Image:
    """A caller's mask made binary: "L", 255 where it is at least 128."""
    return mask.convert("L").point(lambda level: 255 if level >= 128 else 0)


def mask_to_grid(mask: Image.Image, grid: tuple[int, int]) -> Tensor:
    """A picture-sized mask -> binary float32 (h, w) on a coarser `grid`.

    A cell is in when the mask covers at least half as much of it as of the best covered cell around it: for ordinary
    masks that is half of the cell, and a mask thinner than a cell does not vanish.
    """
    height, width = grid
    shares = picture_mask(mask).convert("F").resize((width, height), Image.Resampling.BOX)
    coverage = torch.from_numpy(np.array(shares))
    return ((coverage > 0) & (coverage >= 0.5 * _peak_around(coverage, 1))).float()


def union(masks: list[Image.Image]) -> Image.Image:
    """White where any of the masks is white."""
    result = masks[0]
    for mask in masks[1:]:
        result = ImageChops.lighter(result, mask)
    return result


def composite(edited: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """`edited` inside `mask`, `original` outside, to the byte, with the soft edge of `choices.FEATHER_SHARE` inside.

    Blurred, a mask is half at its border and whole one radius further in; what is thinner never gets so far, and is
    measured against its own peak.
    """
    radius = max(1, round(min(original.size) * choices.FEATHER_SHARE))
    blurred = torch.from_numpy(np.array(mask.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32))
    peak = _peak_around(blurred, radius).clamp_min(1e-6)
    inner = ((2 * blurred - peak) / peak).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.composite(edited, original, ImageChops.darker(Image.fromarray(inner.numpy()), mask))


def _peak_around(levels: Tensor, radius: int) -> Tensor:
    """The largest value within `radius` in each direction, (H, W)."""
    size = 2 * radius + 1
    across = F.max_pool2d(levels[None], (1, size), stride=1, padding=(0, radius))
    return F.max_pool2d(across, (size, 1), stride=1, padding=(radius, 0))[0]
