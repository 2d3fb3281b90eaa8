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
