"""Where each sub-instruction acts: Eq. 2 and Eq. 8 of Guo and Lin (2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foi_core import choices


def keyword_map(attention: Tensor, token_indices: list[int]) -> Tensor:
    """A[e_i] of Eq. 2: attention (h, w, tokens) -> the keyword's columns, averaged over its tokens, (h, w)."""
    return attention[..., token_indices].mean(dim=-1)


def smooth(attention_map: Tensor) -> Tensor:
    """The Gaussian filter of Eq. 2: each cell a linear combination of its neighbours, (h, w) -> (h, w)."""
    side, centre, _ = choices.SMOOTHING_WEIGHTS
    mode = "reflect" if min(attention_map.shape) > 1 else "replicate"
    p = F.pad(attention_map[None, None], (1, 1, 1, 1), mode=mode)[0, 0]
    # Sums rather than a convolution: on a GPU that may round to TF32, which Eq. 2's powers would magnify.
    rows = side * (p[:-2] + p[2:]) + centre * p[1:-1]
    return side * (rows[:, :-2] + rows[:, 2:]) + centre * rows[:, 1:-1]


def normalise(attention_map: Tensor) -> Tensor:
    """Min-max scaling to [0, 1]; a flat map, which points nowhere, becomes zero."""
    low, high = attention_map.amin(), attention_map.amax()
    return torch.where(high > low, (attention_map - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny), 0.0)


def enhance(attention_map: Tensor, gamma: int = choices.GAMMA) -> Tensor:
    """Eq. 2: squared and normalised `gamma` times, (h, w) in [0, 1]."""
    for _ in range(gamma):
        # Scaled by its peak first: the same result, and tiny attentions do not underflow.
        attention_map = normalise((attention_map / attention_map.amax().clamp_min(1e-30)).square())
    return attention_map


def guided_filter(soft: Tensor, guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """`soft` (H, W) redrawn along the edges of a colour picture `guide` (3, H, W) in [0, 1].

    In every window of 2 `radius` + 1 pixels it becomes a linear function of the colours (He et al. 2010, Eq. 19).
    `epsilon` is the colour variance below which a window counts as flat.
    """
    guide, soft = guide.double(), soft.double()
    mean = _box_mean(torch.cat([guide, soft[None]]), radius)
    mean_guide, mean_soft = mean[:3], mean[3]
    products = torch.cat([guide * soft, (guide[:, None] * guide[None]).flatten(0, 1)])
    means = _box_mean(products, radius)
    covariance = means[:3] - mean_guide * mean_soft  # (3, H, W)
    spread = means[3:].unflatten(0, (3, 3)) - mean_guide[:, None] * mean_guide[None]  # (3, 3, H, W)
    spread = spread + epsilon * torch.eye(3, dtype=torch.float64, device=guide.device)[:, :, None, None]
    slope = torch.linalg.solve(spread.permute(2, 3, 0, 1), covariance.permute(1, 2, 0)).permute(2, 0, 1)
    offset = mean_soft - (slope * mean_guide).sum(dim=0)
    mean = _box_mean(torch.cat([slope, offset[None]]), radius)
    return ((mean[:3] * guide).sum(dim=0) + mean[3]).float()


def _box_mean(planes: Tensor, radius: int) -> Tensor:
    """The mean over each pixel's window, (n, H, W); the border is continued."""
    side = 2 * radius + 1
    padded = F.pad(planes[None], (radius,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, (1, side), stride=1), (side, 1), stride=1)[0]


def binarise(attention_map: Tensor, threshold: float) -> Tensor:
    """M_i = 1(A[e_i] >= tau), float32 (h, w) of zeros and ones; an empty map gives an empty mask even at tau = 0."""
    return ((attention_map >= threshold) & (attention_map.amax() > 0)).float()


def union(masks: Tensor) -> Tensor:
    """OR_i M_i of Eq. 8: (k, h, w) -> (h, w)."""
    return masks.amax(dim=0)


def interpolate(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample of Eq. 8, and the interpolation of M to a layer: (..., h, w) -> (..., H, W)."""
    flat = masks.reshape(1, -1, *masks.shape[-2:])
    return F.interpolate(flat, size=size, mode=choices.MASK_INTERPOLATION).reshape(*masks.shape[:-2], *size)


def entropy(attention_map: Tensor) -> float:
    """How spread a map is, in nats: the lower, the more concentrated. log(h w) for a flat map."""
    share = attention_map / attention_map.sum().clamp_min(1e-30)
    return float(-(share * (share + 1e-30).log()).sum())
