"""SD 1.x and 2.x's UNet as a function of tensors: diffusers' weights, and nothing computed that an edit's steps share.

What depends on the text alone (keys and values of all cross-attention) and on the timestep alone (every block's shift)
is made once, at admission, and given to each pass. Self-attention projects its queries, keys and values at once. The
numbers are those of diffusers' `UNet2DConditionModel`, which keeps the weights and still works.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from foi_core.attention import Focus, Hook, Layer, attend
from foi_core.errors import UnsupportedCheckpoint
from foi_core.layout import BLOCKS
from foi_core.regions import Size

FREE = {
    *("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "norm_num_groups"),
    *("norm_eps", "cross_attention_dim", "attention_head_dim", "num_attention_heads", "use_linear_projection"),
    *("down_block_types", "up_block_types", "flip_sin_to_cos", "freq_shift", "transformer_layers_per_block"),
    *("dropout", "upcast_attention", "time_embedding_dim", "addition_embed_type_num_heads"),
}
"""Settings of diffusers' UNet that may differ from its defaults; any other would need work that is not done here.
Upcast attention is done by SDPA, as in diffusers."""


@dataclass(frozen=True)
class Pass:
    """What all layers of one pass share."""

    time: Tensor  # (B, shifts)
    text: Tensor  # (B, tokens, keys and values)
    focus: Focus | None
    hooks: Sequence[Hook]


class UNet(nn.Module):
    """`source`'s layers in another order of work. Raises UnsupportedCheckpoint for what SD 1.x and 2.x do not have."""

    def __init__(self, source: UNet2DConditionModel) -> None:
        super().__init__()
        _check(source)
        # Convolutions and linear layers then read one layout: cells are neighbours, channels within them.
        self.source = source.to(memory_format=torch.channels_last)
        blocks = [*source.down_blocks, source.mid_block, *source.up_blocks]
        resnets = [resnet for block in blocks for resnet in block.resnets]
        crossed = [t.attn2 for block in blocks for a in _attentions(block) for t in a.transformer_blocks]
        self.shifts = _joined([resnet.time_emb_proj for resnet in resnets])
        self.keys_and_values = _joined([linear for attn in crossed for linear in (attn.to_k, attn.to_v)])
        spans = iter(_spans([resnet.time_emb_proj.out_features for resnet in resnets]))
        texts = iter(_spans([2 * attn.to_k.out_features for attn in crossed]))

        def stages(block: Any, level: int) -> tuple[_Stage, ...]:
            """A block's residual blocks, each with the attention that follows; the middle's last has none."""
            residuals = [_Residual(resnet, next(spans)) for resnet in block.resnets]
            transformers = [_Transformer(attention, level, texts) for attention in _attentions(block)]
            return tuple(_Stage(*pair) for pair in zip_longest(residuals, transformers))

        deepest = len(source.down_blocks) - 1
        self.down = tuple(stages(block, i) for i, block in enumerate(source.down_blocks))
        self.middle = stages(source.mid_block, deepest)
        self.up = tuple(stages(block, deepest - i) for i, block in enumerate(source.up_blocks))
        # The middle counts only beside others: alone it would be one layer, on a map too coarse for a mask.
        self.attention_levels = {i for i, block in enumerate(source.down_blocks) if _attentions(block)}

    @property
    def native_size(self) -> int:
        """Latent cells of the native picture's side."""
        native = self.source.config.sample_size
        return int(min(native) if isinstance(native, list | tuple) else native)

    def sizes(self, latent_size: Size) -> tuple[Size, ...]:
        """(h, w) at every level: each halves, rounding up."""
        found = [latent_size]
        for _ in self.down[1:]:
            height, width = found[-1]
            found.append(((height + 1) // 2, (width + 1) // 2))
        return tuple(found)

    @property
    def dtype(self) -> torch.dtype:
        return self.shifts.weight.dtype

    def time_shifts(self, timesteps: Tensor) -> Tensor:
        """(n,) -> (n, shifts): what every residual block adds at these timesteps."""
        source = self.source
        embedded = source.time_embedding(source.time_proj(timesteps).to(self.dtype))
        shifts: Tensor = self.shifts(F.silu(embedded))
        return shifts

    def text(self, states: Tensor) -> Tensor:
        """The text encoder's states (rows, tokens, width) -> every cross-attention's keys and values, side by side,
        (rows, tokens, keys and values)."""
        found: Tensor = self.keys_and_values(states)
        return found

    def forward(
        self, sample: Tensor, time: Tensor, text: Tensor, focus: Focus | None = None, hooks: Sequence[Hook] = ()
    ) -> Tensor:
        """`sample` (B, channels, h, w), each row's `time_shifts` and `text` -> its prediction (B, out channels, h, w).

        `focus` are the rows whose cross-attention is modulated; `hooks` are shown every attention layer.
        """
        shared, source = Pass(time, text, focus, hooks), self.source
        hidden = source.conv_in(sample)
        skips = [hidden]
        for stages, block in zip(self.down, source.down_blocks, strict=True):
            for stage in stages:
                hidden = stage(hidden, shared)
                skips.append(hidden)
            for halved in block.downsamplers or ():
                hidden = halved.conv(hidden)
                skips.append(hidden)
        for stage in self.middle:
            hidden = stage(hidden, shared)
        for stages, block in zip(self.up, source.up_blocks, strict=True):
            for stage in stages:
                hidden = stage(torch.cat([hidden, skips.pop()], dim=1), shared)
            for doubled in block.upsamplers or ():
                hidden = doubled.conv(F.interpolate(hidden, size=skips[-1].shape[-2:], mode="nearest"))
        out: Tensor = source.conv_out(F.silu(source.conv_norm_out(hidden)))
        return out


class _Stage:
    def __init__(self, residual: _Residual, transformer: _Transformer | None) -> None:
        self.residual, self.transformer = residual, transformer

    def __call__(self, hidden: Tensor, shared: Pass) -> Tensor:
        hidden = self.residual(hidden, shared)
        return hidden if self.transformer is None else self.transformer(hidden, shared)


class _Residual:
    def __init__(self, source: ResnetBlock2D, span: slice) -> None:
        self.source, self.span = source, span

    def __call__(self, hidden: Tensor, shared: Pass) -> Tensor:
        source = self.source
        shift = shared.time[:, self.span, None, None]
        inside: Tensor = source.conv1(F.silu(source.norm1(hidden))) + shift
        inside = source.conv2(F.silu(source.norm2(inside)))
        skipped: Tensor = hidden if source.conv_shortcut is None else source.conv_shortcut(hidden)
        return inside + skipped


class _Transformer:
    def __init__(self, source: Transformer2DModel, level: int, texts: Iterator[slice]) -> None:
        self.source, self.level = source, level
        self.blocks = tuple(_Block(block, level, next(texts)) for block in source.transformer_blocks)

    def __call__(self, hidden: Tensor, shared: Pass) -> Tensor:
        rows, channels, height, width = hidden.shape
        source = self.source
        inside = source.norm(hidden).permute(0, 2, 3, 1).reshape(rows, height * width, channels)
        inside = _linear(source.proj_in, inside)
        for block in self.blocks:
            inside = block(inside, (height, width), shared)
        inside = _linear(source.proj_out, inside).view(rows, height, width, channels).permute(0, 3, 1, 2)
        return inside + hidden


class _Block:
    def __init__(self, source: BasicTransformerBlock, level: int, text: slice) -> None:
        self.source, self.level, self.text = source, level, text
        self.queries_keys_values = _joined([source.attn1.to_q, source.attn1.to_k, source.attn1.to_v])

    def __call__(self, hidden: Tensor, size: tuple[int, int], shared: Pass) -> Tensor:
        source = self.source
        hidden = hidden + self._self_attention(source.norm1(hidden), size, shared.hooks)
        hidden = hidden + self._cross_attention(source.norm2(hidden), size, shared)
        widened, gate = source.ff.net[0].proj(source.norm3(hidden)).chunk(2, dim=-1)
        fed: Tensor = source.ff.net[2](widened * F.gelu(gate))
        return hidden + fed

    def _self_attention(self, hidden: Tensor, size: tuple[int, int], hooks: Sequence[Hook]) -> Tensor:
        attn = self.source.attn1
        query, key, value = _heads(self.queries_keys_values(hidden), 3 * attn.heads).chunk(3, dim=1)
        out = F.scaled_dot_product_attention(query, key, value)
        for hook in hooks:
            hook(Layer(query, key, value, out, size, self.level, None))
        return _from_heads(attn, out)

    def _cross_attention(self, hidden: Tensor, size: tuple[int, int], shared: Pass) -> Tensor:
        attn = self.source.attn2
        query = _heads(attn.to_q(hidden), attn.heads)
        key, value = keys_and_values(shared.text, self.text, attn.heads)
        out = attend(query, key, value, shared.focus, self.level)
        for hook in shared.hooks:
            hook(Layer(query, key, value, out, size, self.level, self.text))
        return _from_heads(attn, out)


def keys_and_values(text: Tensor, layer: slice, heads: int) -> tuple[Tensor, Tensor]:
    """One layer's keys and values out of `UNet.text`'s, each (rows, heads, tokens, d)."""
    key, value = _heads(text[..., layer], 2 * heads).chunk(2, dim=1)
    return key, value


def _heads(projected: Tensor, heads: int) -> Tensor:
    """(B, n, heads * d) -> (B, heads, n, d)"""
    return projected.view(*projected.shape[:-1], heads, -1).transpose(1, 2)


def _from_heads(attn: Attention, out: Tensor) -> Tensor:
    projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))  # (B, queries, heads * d)
    return projected


def _linear(layer: nn.Module, hidden: Tensor) -> Tensor:
    """SD 1.x projects by a 1x1 convolution, SD 2.x by the linear layer that it is."""
    assert isinstance(layer.weight, Tensor)
    return F.linear(hidden, layer.weight.flatten(1), layer.bias)  # type: ignore[arg-type]


def _joined(layers: list[nn.Linear]) -> nn.Linear:
    """Layers of one input as one layer, whose weights they share from now on."""
    with_bias = layers[0].bias is not None
    joined = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), with_bias, device="meta")
    spans = _spans([layer.out_features for layer in layers])
    for name in ("weight", "bias") if with_bias else ("weight",):
        whole = torch.cat([getattr(layer, name).detach() for layer in layers])
        setattr(joined, name, nn.Parameter(whole, requires_grad=False))
        for layer, span in zip(layers, spans, strict=True):
            setattr(layer, name, nn.Parameter(whole[span], requires_grad=False))
    return joined


def _spans(widths: list[int]) -> list[slice]:
    return [slice(*ends) for ends in pairwise(accumulate(widths, initial=0))]


def _attentions(block: nn.Module) -> list[Transformer2DModel]:
    return list(getattr(block, "attentions", ()))


def _check(source: UNet2DConditionModel) -> None:
    """Whether `forward` does all that diffusers' would."""
    config = source.config
    unknown = [f"block {name}" for name in (*config.down_block_types, *config.up_block_types) if name not in BLOCKS]
    for name, parameter in inspect.signature(UNet2DConditionModel.__init__).parameters.items():
        if name not in FREE and name != "self" and (config[name] or None) != (parameter.default or None):
            unknown.append(f"{name} = {config[name]!r}")
    if config.norm_num_groups is None:
        unknown.append("norm_num_groups = None")
    if unknown:
        raise UnsupportedCheckpoint(f"its UNet is not one of Stable Diffusion 1.x or 2.x: {', '.join(unknown)}")
