"""Masks finer than the map's cells: the soft map is upsampled to the picture, then cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from foi_core.mask_sources import MaskSource, Seen
from foi_core.regions import Region


@dataclass(frozen=True)
class Upsampled:
    """`source`'s soft map, bicubic to the picture's size, then cut at tau, or at Otsu's threshold (1979)."""

    source: MaskSource
    otsu: bool = False

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:
        return self.source.soft_map(seen, tokens)

    def region(self, soft: Tensor, threshold: float, image: Image.Image) -> Region:
        fine = np.asarray(Image.fromarray(soft.float().cpu().numpy()).resize(image.size, Image.Resampling.BICUBIC))
        cut = otsu(fine) if self.otsu else threshold
        inside = (fine >= cut) & bool(soft.any())
        return Region.from_picture(
            Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)), (soft.shape[0], soft.shape[1]), soft.device
        )


def otsu(levels: np.ndarray) -> float:
    """The threshold that maximises the variance between the two classes it makes."""
    counts, edges = np.histogram(levels, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below = (counts * centres).cumsum() / np.maximum(below, 1)
    mean_above = (counts * centres)[::-1].cumsum()[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(edges[1:-1][between.argmax()])
