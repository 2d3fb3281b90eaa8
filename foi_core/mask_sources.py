"""Where a soft map of each sub-instruction comes from, and how it becomes a region: Eq. 2 of Guo and Lin (2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from foi_core import choices, images, masks
from foi_core.regions import Region


@dataclass(frozen=True)
class Seen:
    """What one row of the mask step saw.

    `attention` (h, w, tokens) is the mean of the map level's layers and heads. `difference` (C, H, W) is e_IT - e_I0 at
    the latent's resolution. `watched` is the row's place among those watched in this pass.
    """

    attention: Tensor
    difference: Tensor
    watched: int


class MaskSource(Protocol):
    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:
        """Where the sub-instruction acts, (h, w) in [0, 1]; zero everywhere if nowhere.

        `tokens` are its keyword's columns, none if it was cut off.
        """
        ...

    def region(self, soft: Tensor, threshold: float, image: Image.Image) -> Region:
        """The region of the picture that is edited; `image` has the model's size."""
        ...


class InCells:
    """A soft map cut at tau in its own cells."""

    def region(self, soft: Tensor, threshold: float, image: Image.Image) -> Region:  # noqa: ARG002  cells only
        return Region(masks.binarise(soft, threshold))


@dataclass(frozen=True)
class KeywordAttention(InCells):
    """The paper's: A[e_i] smoothed, squared and normalised `gamma` times, then cut at tau in the map's own cells.

    With `gamma` 0 it is only normalised.
    """

    gamma: int = choices.GAMMA

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:
        """Eq. 2, up to the threshold."""
        if not tokens:
            return seen.attention.new_zeros(seen.attention.shape[:2])
        smooth = masks.smooth(masks.keyword_map(seen.attention, list(tokens)))
        return masks.enhance(smooth, self.gamma) if self.gamma else masks.normalise(smooth)


@dataclass(frozen=True)
class GuidedAttention:
    """A[e_i] drawn along the picture's own edges: neither smoothed nor squared, upsampled, guided-filtered, cut at tau.

    Eq. 2's filter and powers make up for a coarse map; the picture knows better where an object ends.
    """

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:
        if not tokens:
            return seen.attention.new_zeros(seen.attention.shape[:2])
        return masks.normalise(masks.keyword_map(seen.attention, list(tokens)))

    def region(self, soft: Tensor, threshold: float, image: Image.Image) -> Region:
        """The filter works at GUIDE_CELL pixels a cell of the map; its result is upsampled to the picture and cut."""
        grid = (soft.shape[0], soft.shape[1])
        if not soft.any():
            return Region.from_picture(Image.new("L", image.size), grid, soft.device)
        height, width = (choices.GUIDE_CELL * side for side in soft.shape)
        guide = images.to_tensor(image, (width, height))[0].to(soft.device) / 2 + 0.5
        rough = F.interpolate(soft[None, None].float(), size=(height, width), mode="bicubic")[0, 0]
        fine = masks.guided_filter(rough, guide, choices.GUIDE_CELL, choices.GUIDE_EPSILON)
        peak = float(fine.amax())
        # In a flat place the filter may leave a small region nowhere above tau: then tau is a share of its peak.
        cut = threshold if peak >= threshold else threshold * peak
        return Region.cut(fine, cut, image.size, grid)
