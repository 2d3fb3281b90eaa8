"""Other ways than Eq. 3 to keep an instruction's attention inside its region."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foi_core.attention import FocusRow, Layer, cross_condition_modulation


def value_isolation(layer: Layer, this: FocusRow) -> Tensor:
    """Eq. 3 inside the union; outside, the null branch's whole attention output, its values too."""
    inside = this.regions.union(layer.size).flatten()[:, None].to(layer.out.dtype)
    return torch.lerp(layer.out[this.null_row], cross_condition_modulation(layer, this), inside)


def whole_inside(layer: Layer, this: FocusRow) -> Tensor:
    """The whole instruction's attention inside the union, the null branch's outside: no instruction is kept from
    another's region."""
    inside = this.regions.union(layer.size).flatten()[:, None].to(layer.out.dtype)
    return torch.lerp(layer.out[this.null_row], layer.out[this.row], inside)


def apart(layer: Layer, this: FocusRow) -> Tensor:
    """Each sub-instruction, encoded by itself, is attended to inside its own region alone; where regions overlap, their
    mean; outside, the null branch's output."""
    assert this.apart is not None
    attn, query = layer.attn, layer.query[this.row]
    key, value = (
        project(this.apart).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for project in (attn.to_k, attn.to_v)
    )
    each = F.scaled_dot_product_attention(query.expand(len(key), -1, -1, -1), key, value)  # (k, heads, queries, d)
    inside = torch.stack([region.at(layer.size).flatten() for region in this.regions.each]).to(each.dtype)
    shares = inside / inside.sum(dim=0).clamp_min(1)  # (k, queries)
    outside = 1 - inside.amax(dim=0)
    return torch.einsum("khqd,kq->hqd", each, shares) + layer.out[this.null_row] * outside[:, None]
