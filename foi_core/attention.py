"""Cross-attention watched and modulated: Eq. 3-7 of Guo and Lin (2024).

`attend` is every cross-attention layer's attention in a pass of the UNet; Eq. 3 itself is in `modulated.py`. Hooks see
each layer's queries, keys, values and output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from foi_core import choices
from foi_core.modulated import NULL_EVERYWHERE, Masks, modulated_attention, spelled_out
from foi_core.regions import Regions, Size


def xi(t: float) -> float:
    """Eq. 7: 0.05 t^4, with the timestep t normalised to [0, 1]."""
    return choices.XI_FACTOR * t**choices.XI_POWER


def scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Eq. 4 and 5, already divided by sqrt(d): Q K^T / sqrt(d), (heads, queries, tokens), in float32.

    Eq. 3 is linear in its scores, so scaling first changes nothing but keeps half precision from overflowing.
    """
    return (queries.float() / math.sqrt(queries.shape[-1])) @ keys.float().transpose(-1, -2)


AttentionPolicy = Callable[[Regions, Size], Tensor]
"""Which region each cell of a layer is in, as `modulated_attention` takes it: (cells,) int32."""


def cross_condition_modulation(regions: Regions, size: Size) -> Tensor:
    """Eq. 3: a token acts by the instruction's scores inside its own region, by the null's everywhere else."""
    return regions.cover(size) | NULL_EVERYWHERE


def exclusive_modulation(regions: Regions, size: Size) -> Tensor:
    """Eq. 3 only between instructions: T_i's tokens take the null instruction's scores where another's region is.

    Outside all regions the instruction is left alone: what it sees there is context, and sampling and compositing keep
    it from acting. Eq. 6 strengthens T_i inside its own region, as in the paper.
    """
    return regions.cover(size)


class Focus(NamedTuple):
    """The first rows of a batch, whose cross-attention Eq. 3 modulates: f of them, and as many null rows."""

    covers: tuple[Tensor, ...]  # by level: (f, cells) int32
    owner: Tensor  # (f, tokens) int32
    gain: Tensor  # (f, tokens): alpha xi(t)
    null_row: int  # of the first; the (I, null) rows stand in the same order
    masks: tuple[Masks, ...] | None = None  # by level, where modulation is spelled out: on a CPU


def attend(query: Tensor, key: Tensor, value: Tensor, focus: Focus | None, level: int) -> Tensor:
    """Stock attention, and Eq. 3 for the rows in focus: (B, heads, queries or tokens, d) -> (B, heads, queries, d)."""
    if focus is None:
        return F.scaled_dot_product_attention(query, key, value)
    f, null = len(focus.owner), slice(focus.null_row, focus.null_row + len(focus.owner))
    rows = query[:f], key[:f], value[:f], query[null], key[null]
    if focus.masks is not None:
        modulated = spelled_out(*rows, focus.masks[level], focus.gain)
    else:
        modulated = modulated_attention(*rows, focus.covers[level], focus.owner, focus.gain)
    stock = F.scaled_dot_product_attention(query[f:], key[f:], value[f:])
    # Joined as (B, queries, heads, d), which is how both lie in memory, and how the next layer reads them.
    return torch.cat([modulated.transpose(1, 2), stock.transpose(1, 2)]).transpose(1, 2)


@dataclass
class Layer:
    """One attention layer in a pass, as a hook sees it: `query`, `key`, `value` and its output `out`, each
    (B, heads, queries or tokens, d); the `size` (h, w) that its queries are cells of, and how often (`level`) the
    latent was halved to it. `text` is where a cross-attention's keys and values lie in `UNet.text`; None: it is
    self-attention. A hook may write into `out`."""

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    size: Size
    level: int
    text: slice | None


Hook = Callable[[Layer], None]


@dataclass
class Watch:
    """A hook that collects the cross-attention of `rows` at one level: `seen`, its sum over layers and heads."""

    rows: tuple[int, ...]
    level: int
    seen: Tensor | None = None  # (rows watched, h, w, tokens)
    maps: int = 0

    def __call__(self, layer: Layer) -> None:
        if layer.text is None or layer.level != self.level:
            return
        rows = list(self.rows)
        probabilities = scores(layer.query[rows], layer.key[rows]).softmax(dim=-1)
        total = probabilities.sum(dim=1).unflatten(1, layer.size)
        self.seen = total if self.seen is None else self.seen + total
        self.maps += probabilities.shape[1]

    @property
    def attention(self) -> Tensor:
        """The mean over the level's layers and heads, (rows watched, h, w, tokens)."""
        if self.seen is None:
            raise RuntimeError("no cross-attention layer was watched: give the watch to a pass of the UNet first")
        return self.seen / self.maps


@dataclass(frozen=True)
class FocusRow:
    """One row whose attention is done anew in every layer: its index in the batch, its (I, null)
    partner's, and its regions. `apart` (k, tokens, keys and values) are its sub-instructions encoded each by itself,
    as `UNet.text` gives them, where the recipe asks for them."""

    row: int
    null_row: int
    regions: Regions
    apart: Tensor | None = None


Rewriting = Callable[[Layer, FocusRow], Tensor]
"""A focus row's cross-attention output anew, (heads, queries, d)."""


@dataclass(frozen=True)
class Rewrite:
    """A hook that puts `how`'s output in the place of the row's own."""

    how: Rewriting
    this: FocusRow

    def __call__(self, layer: Layer) -> None:
        if layer.text is not None:
            layer.out[self.this.row] = self.how(layer, self.this)


def map_level(levels: set[int], sample_size: int) -> int:
    """Of the levels with cross-attention, the one whose map is nearest to `choices.MAP_SIDE` at the native size."""
    return min(levels, key=lambda level: abs(math.log(sample_size / 2**level / choices.MAP_SIDE)))
