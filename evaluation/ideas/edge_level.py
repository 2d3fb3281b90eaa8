"""A soft map cut without a tau: at the level whose border follows the picture's own edges best.

The paper cuts every map at one tau. How high an object stands in its map depends on how a checkpoint was trained, so
that one tau takes in nearly everything on one and nearly nothing on another. The order of a map's values depends on it
much less, and so do the candidates here: level sets, each named by the share of the picture that it holds. Geodesic
active contours (Caselles et al. 1997) choose a contour by the edges under it in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from foi_core import choices, images, masks
from foi_core.mask_sources import GuidedAttention
from foi_core.regions import Region

LEVELS = 32
SMALLEST, LARGEST = 0.01, 0.8
"""Shares of the picture that candidates hold, in a geometric series. What is larger is the whole picture, which a map
cannot tell from nothing."""
FALL_WEIGHT = 0.3
"""The power of the map's fall across a border. Measured on tuning scenes: .2 to .5 do the same."""


@dataclass(frozen=True)
class EdgeLevel(GuidedAttention):
    """`GuidedAttention`'s map, cut where `best_level` says; tau is not used."""

    def region(self, soft: Tensor, threshold: float, image: Image.Image) -> Region:  # noqa: ARG002  none is needed
        grid = (soft.shape[0], soft.shape[1])
        if not soft.any():
            return Region.from_picture(Image.new("L", image.size), grid, soft.device)
        guide = guide_of(image, grid).to(soft.device)
        fine = guided(soft, guide)
        return Region.cut(fine, best_level(fine, edge_strength(guide), choices.GUIDE_CELL), image.size, grid)


def guide_of(image: Image.Image, grid: tuple[int, int]) -> Tensor:
    """The picture at the resolution where `GuidedAttention` looks for edges, (3, H, W) in [0, 1]."""
    height, width = (choices.GUIDE_CELL * side for side in grid)
    return images.to_tensor(image, (width, height))[0] / 2 + 0.5


def guided(soft: Tensor, guide: Tensor) -> Tensor:
    """The soft map (h, w) drawn along the guide's edges, (H, W), as `GuidedAttention` does it."""
    rough = F.interpolate(soft[None, None].float(), size=guide.shape[1:], mode="bicubic")[0, 0]
    return masks.guided_filter(rough, guide, choices.GUIDE_CELL, choices.GUIDE_EPSILON)


def edge_strength(image: Tensor) -> Tensor:
    """Rank of each pixel's color gradient among all pixels of the picture: (3, H, W) -> (H, W) in (0, 1).

    A rank, so that neither contrast nor exposure of the picture matters. Equal gradients share their mean rank.
    """
    gaussian = image.new_tensor([0.054, 0.244, 0.404, 0.244, 0.054])  # sigma 1
    slope, mean = image.new_tensor([-0.5, 0.0, 0.5]), image.new_tensor([0.25, 0.5, 0.25])
    smooth = _along(_along(image, gaussian, -1), gaussian, -2)
    across, down = _along(_along(smooth, slope, -1), mean, -2), _along(_along(smooth, slope, -2), mean, -1)
    strength = (across.square() + down.square()).sum(dim=0).flatten()
    ordered = strength.sort().values
    rank = torch.searchsorted(ordered, strength) + torch.searchsorted(ordered, strength, right=True)
    ranks: Tensor = rank / (2 * len(strength))
    return ranks.view(image.shape[1:])


def best_level(soft: Tensor, strength: Tensor, reach: int, fall_weight: float = FALL_WEIGHT) -> float:
    """The value at which to cut `soft` (H, W), given the picture's `edge_strength` (H, W).

    Of every candidate the mean strength under its border counts, times the map's fall across it: the mean within
    `reach` pixels of the border inside, less the same outside, as a share of the map's range, to the power
    `fall_weight`; with 0 the choice depends on nothing but the shapes of the level sets. Candidates are compared at
    half the resolution, which chooses the same levels at a quarter of the cost.
    """
    soft, strength, reach = F.avg_pool2d(soft[None], 2)[0], F.avg_pool2d(strength[None], 2)[0], reach // 2
    cuts = candidates(soft)
    inside = soft >= cuts[:, None, None]  # (levels, H, W)
    border = border_of(inside)
    near = near_to(border, reach)
    fall = _mean(soft, near & inside) - _mean(soft, near & ~inside)
    relative = (fall / (soft.amax() - soft.amin()).clamp_min(1e-12)).clamp_min(1e-6)
    score = _mean(strength, border) * relative**fall_weight
    return float(cuts[score.argmax()])


def candidates(soft: Tensor) -> Tensor:
    """Values at which the level sets of `soft` hold SMALLEST to LARGEST of it, (levels,), ascending."""
    shares = torch.logspace(math.log10(SMALLEST), math.log10(LARGEST), LEVELS, dtype=torch.float64)
    values = soft.flatten().sort(descending=True).values
    cuts: Tensor = values[(shares * (len(values) - 1)).round().long().to(soft.device)].unique()
    return cuts


def border_of(inside: Tensor) -> Tensor:
    """Pixels on either side of a change between neighbors, (n, H, W) bool; the picture's frame is no border."""
    border = torch.zeros_like(inside)
    for dim in (-1, -2):
        size = inside.shape[dim] - 1
        change = inside.narrow(dim, 1, size) ^ inside.narrow(dim, 0, size)
        border.narrow(dim, 1, size).logical_or_(change)
        border.narrow(dim, 0, size).logical_or_(change)
    return border


def near_to(border: Tensor, reach: int) -> Tensor:
    """Pixels within `reach` of a border in both directions, (n, H, W) bool."""
    side = 2 * reach + 1
    across = F.max_pool2d(border.float()[:, None], (1, side), stride=1, padding=(0, reach))
    return F.max_pool2d(across, (side, 1), stride=1, padding=(reach, 0))[:, 0] > 0


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean of `values` (H, W) over each of `where` (n, H, W); 0 where that is empty."""
    return (values * where).sum(dim=(-1, -2)) / where.sum(dim=(-1, -2)).clamp_min(1)


def _along(planes: Tensor, kernel: Tensor, dim: int) -> Tensor:
    """Correlation of (n, H, W) with a kernel along one of its last two dimensions; the border is continued."""
    reach = len(kernel) // 2
    padding = (reach, reach, 0, 0) if dim == -1 else (0, 0, reach, reach)
    padded = F.pad(planes[None], padding, mode="replicate")[0]
    shifted = torch.stack([padded.narrow(dim, i, planes.shape[dim]) for i in range(len(kernel))])
    along: Tensor = torch.tensordot(kernel, shifted, 1)
    return along
