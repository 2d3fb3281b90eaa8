"""Cross-attention watched and modulated: Eq. 3-7 of Guo and Lin (2024).

Only the cross-attention (`attn2`) processors of the UNet are replaced, once, when the model is loaded. What they do
in a forward pass is told by the plan that `CrossAttention.apply` holds for its duration: nothing survives a pass,
even one that fails. Without a plan they are stock scaled dot-product attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from foi_core import choices
from foi_core.regions import Regions


def xi(t: float) -> float:
    """Eq. 7: 0.05 t^4, with the timestep t normalised to [0, 1]."""
    return choices.XI_FACTOR * t**choices.XI_POWER


def scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Eq. 4 and 5, already divided by sqrt(d): Q K^T / sqrt(d), (heads, queries, tokens), in float32.

    Eq. 3 is linear in its scores, so scaling first changes nothing but keeps half precision from overflowing.
    """
    return (queries.float() / math.sqrt(queries.shape[-1])) @ keys.float().transpose(-1, -2)


def strengthening(X: Tensor, alpha: Tensor, xi_t: float) -> Tensor:
    """Eq. 6: dX = alpha * xi(t) * (max(X) - X); the maximum per head and query, over all tokens. alpha (tokens,)."""
    return alpha * xi_t * (X.amax(dim=-1, keepdim=True) - X)


def modulated_attention(X: Tensor, Y: Tensor, M: Tensor, alpha: Tensor, xi_t: float) -> Tensor:
    """Eq. 3: softmax((X + dX) * M + Y * (1 - M)); X, Y scaled scores (heads, queries, tokens), M (queries, tokens)."""
    return torch.lerp(Y, X + strengthening(X, alpha, xi_t), M).softmax(dim=-1)


@dataclass(frozen=True)
class Layer:
    """One cross-attention layer in a forward pass: `query`, `key`, `value` and its stock output `out`, each
    (B, heads, queries or tokens, d), and the (h, w) that its queries are cells of."""

    attn: Attention
    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class FocusRow:
    """One row to modulate: its index in the UNet batch, its (I, null) partner's, xi at its own timestep, and how.

    `apart` (k, tokens, width) are its sub-instructions encoded each by itself, where the policy asks for them.
    """

    row: int
    null_row: int
    regions: Regions
    xi_t: float
    policy: AttentionPolicy
    apart: Tensor | None = None


AttentionPolicy = Callable[[Layer, FocusRow], Tensor]
"""The focus row's attention output anew, (heads, queries, d)."""


def cross_condition_modulation(layer: Layer, this: FocusRow) -> Tensor:
    """Eq. 3-7: the instruction's scores inside its regions, the null's outside; the instruction's values everywhere."""
    X = scores(layer.query[this.row], layer.key[this.row])
    Y = scores(layer.query[this.null_row], layer.key[this.null_row])
    M = this.regions.token_masks(layer.size)
    attention = modulated_attention(X, Y, M, this.regions.alpha, this.xi_t)
    return (attention @ layer.value[this.row].float()).to(layer.query.dtype)


def exclusive_modulation(layer: Layer, this: FocusRow) -> Tensor:
    """Eq. 3 only between instructions: T_i's tokens take the null instruction's scores where another's region is.

    Outside all regions the instruction is left alone: what it sees there is context, and sampling and compositing keep
    it from acting. Eq. 6 strengthens T_i inside its own region, as in the paper.
    """
    X = scores(layer.query[this.row], layer.key[this.row])
    Y = scores(layer.query[this.null_row], layer.key[this.null_row])
    own = this.regions.token_masks(layer.size)
    foreign = this.regions.union(layer.size).flatten()[:, None] * (1 - own)
    strengthened = X + strengthening(X, this.regions.alpha, this.xi_t) * own
    attention = torch.lerp(strengthened, Y, foreign).softmax(dim=-1)
    return (attention @ layer.value[this.row].float()).to(layer.query.dtype)


@dataclass
class Plan:
    """What the cross-attention does in one forward pass, and what it saw.

    `watch` are the rows whose attention is collected at the map level; `seen` their sums over layers and heads.
    """

    latent_size: tuple[int, int]
    watch: tuple[int, ...] = ()
    focus: tuple[FocusRow, ...] = ()
    seen: Tensor | None = None  # (rows watched, queries, tokens)
    maps: int = 0

    def collect(self, probabilities: Tensor) -> None:
        """Adds one layer's (rows, heads, queries, tokens)."""
        total = probabilities.float().sum(dim=1)
        self.seen = total if self.seen is None else self.seen + total
        self.maps += probabilities.shape[1]

    def attention(self, level: int) -> Tensor:
        """The mean over the level's layers and heads, (rows watched, h, w, tokens)."""
        if self.seen is None:
            raise RuntimeError("no cross-attention layer was watched: run the UNet inside CrossAttention.apply first")
        rows, _, tokens = self.seen.shape
        return (self.seen / self.maps).reshape(rows, *size_at_level(self.latent_size, level), tokens)


class CrossAttention:
    """All cross-attention of one UNet, under one plan at a time."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.level = map_level(unet)
        self.plan: Plan | None = None
        levels = layer_levels(unet)
        processors = dict(unet.attn_processors)
        for name, level in levels.items():
            processors[name] = _Processor(self, level)
        unet.set_attn_processor(processors)

    @contextmanager
    def apply(self, plan: Plan) -> Iterator[None]:
        self.plan = plan
        try:
            yield
        finally:
            self.plan = None


class _Processor:
    """Replaces one `attn2`: stock attention for every row, then the rows of the plan anew."""

    def __init__(self, parent: CrossAttention, level: int) -> None:
        self.parent = parent
        self.level = level

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,  # noqa: ARG002  the processors' common signature
    ) -> Tensor:
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, heads, queries or tokens, d)
            for projected in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        if (plan := self.parent.plan) is not None:
            layer = Layer(attn, query, key, value, out, size_at_level(plan.latent_size, self.level))
            for focus_row in plan.focus:
                out[focus_row.row] = focus_row.policy(layer, focus_row)
            if plan.watch and self.level == self.parent.level:
                rows = list(plan.watch)
                plan.collect(scores(query[rows], key[rows]).softmax(dim=-1))
        out = out.transpose(1, 2).flatten(2).to(query.dtype)  # (B, queries, heads * d)
        return attn.to_out[1](attn.to_out[0](out))  # type: ignore[no-any-return]


def layer_levels(unet: UNet2DConditionModel) -> dict[str, int]:
    """Each cross-attention processor's name and its level: how often its latent was halved."""
    deepest = len(unet.config.block_out_channels) - 1
    levels = {}
    for name in unet.attn_processors:
        if ".attn2." in name:
            place, index = name.split(".")[:2]
            levels[name] = (
                int(index) if place == "down_blocks" else deepest - (int(index) if place == "up_blocks" else 0)
            )
    return levels


def map_level(unet: UNet2DConditionModel) -> int:
    """The level whose map is nearest to `choices.MAP_SIDE` at the model's native size, of those with cross-attention.

    The mid block counts only beside others: alone it would be one layer, on a map too coarse for a mask.
    """
    native = unet.config.sample_size
    side = min(native) if isinstance(native, list | tuple) else native
    levels = {level for name, level in layer_levels(unet).items() if not name.startswith("mid_block")}
    return min(levels, key=lambda level: abs(math.log(side / 2**level / choices.MAP_SIDE)))


def size_at_level(latent_size: tuple[int, int], level: int) -> tuple[int, int]:
    """(h, w) after `level` halvings; the UNet's strided convolutions round up."""
    height, width = latent_size
    for _ in range(level):
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    return height, width
