"""Other ways than Eq. 3 to keep an instruction's attention inside its region."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foi_core.attention import FocusRow, Layer
from foi_core.unet import keys_and_values


def null_outside(layer: Layer, this: FocusRow) -> Tensor:
    """Outside the union, the null branch's whole attention output, its values too; inside, what the row has: Eq. 3's
    ("value isolation"), or the whole instruction's where nothing is modulated."""
    inside = this.regions.union(layer.size).flatten()[:, None].to(layer.out.dtype)
    return torch.lerp(layer.out[this.null_row], layer.out[this.row], inside)


def apart(layer: Layer, this: FocusRow) -> Tensor:
    """Each sub-instruction, encoded by itself, is attended to inside its own region alone; where regions overlap, their
    mean; outside, the null branch's output."""
    assert this.apart is not None
    assert layer.text is not None
    query = layer.query[this.row]
    key, value = keys_and_values(this.apart, layer.text, heads=len(query))
    each = F.scaled_dot_product_attention(query.expand(len(key), -1, -1, -1), key, value)  # (k, heads, queries, d)
    inside = torch.stack([region.at(layer.size).flatten() for region in this.regions.each]).to(each.dtype)
    shares = inside / inside.sum(dim=0).clamp_min(1)  # (k, queries)
    outside = 1 - inside.amax(dim=0)
    return torch.einsum("khqd,kq->hqd", each, shares) + layer.out[this.null_row] * outside[:, None]
