"""Modulated cross-attention of all focus rows of a batch in one function: Eq. 3-7 of Guo and Lin (2024).

Which instruction acts where is told in bits, so that one formula serves every row, policy and number of regions:
`cover` has a bit for every region that covers a cell, `owner` one for every region in which a token acts. Per head,
query (a cell) and token:

    X = Q_IT K_IT^T / sqrt(d),   Y = Q_I0 K_I0^T / sqrt(d)      Eq. 4, 5; Eq. 3 is linear in them: scaled first
    own  = cover & owner != 0
    null = cover != 0, and not own
    L = Y where null; X + gain (max X - X) where own; else X    Eq. 6, 7: gain = alpha xi(t)
    out = softmax(L) V_IT                                       Eq. 3
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NULL_EVERYWHERE = 1 << 30
"""In `cover`: where the cell is in no region too, tokens have the null instruction's scores."""

log = logging.getLogger(__name__)


@torch.library.custom_op("foi::modulated_attention", mutates_args=())
def modulated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    null_query: Tensor,
    null_key: Tensor,
    cover: Tensor,
    owner: Tensor,
    gain: Tensor,
) -> Tensor:
    """The focus rows' attention output, (f, heads, queries, d), in query's dtype; scores and sums are float32.

    - `query` (f, heads, queries, d), `key` and `value` (f, heads, tokens, d): the (I, T) rows.
    - `null_query`, `null_key`: likewise, of the same edits' (I, null) rows.
    - `cover` (f, queries) int32: bit i is set where region i covers the cell, i < 30; and NULL_EVERYWHERE.
    - `owner` (f, tokens) int32: the bits of the regions in which the token acts; never NULL_EVERYWHERE.
    - `gain` (f, tokens) float32, >= 0: alpha * xi(t).

    Of the first five the last dimension is contiguous; else any strides will do, those of expand() included. The output
    lies in memory as (f, queries, heads, d), as that of scaled dot-product attention does.

    With M = 1 where own, Eq. 3 is L = M (X + dX) + (1 - M) Y: with NULL_EVERYWHERE in all of `cover` a token is either
    own or null, which is Eq. 3 as written, also where regions overlap, as M of a token asks its own regions alone.
    Without it a token is null only in a cell of some region, none of which is its own: Eq. 3 between instructions,
    which leaves X where no region is.

    On CUDA it is one Triton kernel: no synchronisation, so that a CUDA graph can hold it (call it once before, to have
    it compiled). Elsewhere, and on CUDA where `triton` is not installed (a warning says so once), it is `reference`; to
    torch.compile it is one operator, whatever the device does in it.
    """
    return reference(query, key, value, null_query, null_key, cover, owner, gain)


def reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    null_query: Tensor,
    null_key: Tensor,
    cover: Tensor,
    owner: Tensor,
    gain: Tensor,
) -> Tensor:
    """`modulated_attention` in PyTorch's own operations: the specification of the kernel."""
    return spelled_out(query, key, value, null_query, null_key, masks(cover, owner), gain)


class Masks(NamedTuple):
    """Where which scores hold, (f, 1, queries, tokens) each: `own` float32 of zeros and ones, `null` bool."""

    own: Tensor
    null: Tensor


def masks(cover: Tensor, owner: Tensor) -> Masks:
    """From their bits."""
    own = (cover[:, :, None] & owner[:, None, :]) != 0
    null = (cover != 0)[:, :, None] & ~own
    return Masks(own.float()[:, None], null[:, None])


def spelled_out(
    query: Tensor, key: Tensor, value: Tensor, null_query: Tensor, null_key: Tensor, where: Masks, gain: Tensor
) -> Tensor:
    """`reference` for masks that are there already: what a CPU does, layer after layer."""
    X, Y = _scores(query, key), _scores(null_query, null_key)
    X.lerp_(X.amax(dim=-1, keepdim=True), where.own * gain[:, None, None, :])
    torch.where(where.null, Y, X, out=X)  # two big buffers serve all: fresh ones cost more than the arithmetic
    attention = torch.softmax(X, dim=-1, out=Y)
    return empty_output(query).copy_(attention @ value.float())


def empty_output(query: Tensor) -> Tensor:
    """(f, heads, queries, d), in memory (f, queries, heads, d)."""
    rows, heads, queries, d = query.shape
    return query.new_empty(rows, queries, heads, d).transpose(1, 2)


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """Q K^T / sqrt(d) in float32, (f, heads, queries, tokens); the keys are scaled, as they are few."""
    return query.float() @ (key.float() / math.sqrt(query.shape[-1])).transpose(-1, -2)


@modulated_attention.register_kernel("cuda")
def _on_cuda(*operands: Tensor) -> Tensor:
    return _fused_or_twin()(*operands)


@modulated_attention.register_fake
def _shape(query: Tensor, *_: Tensor) -> Tensor:
    return empty_output(query)


@functools.cache
def _fused_or_twin() -> Callable[..., Tensor]:
    if importlib.util.find_spec("triton") is None:
        log.warning("triton is not installed: modulated attention runs in PyTorch's own operations, which is slower")
        return reference
    from foi_core.modulated_triton import fused

    return fused
