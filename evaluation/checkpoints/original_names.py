"""diffusers' weights under the names of an original (`ldm`) checkpoint: the way back, to test the way there.

Used by `check_real_shapes` and the tests only: it makes original checkpoints out of random weights.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

Weights = dict[str, Tensor]

_UNET_PLAIN = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def original_unet(weights: Weights, layers_per_block: int) -> Weights:
    """Under `model.diffusion_model.`; a level is `layers_per_block` (+ 1 on the way up) numbered blocks."""
    with_attention = {name.split(".")[1] for name in weights if re.match(r"up_blocks\.\d+\.attentions", name)}
    return {
        "model.diffusion_model." + _unet_name(name, layers_per_block + 1, with_attention): tensor
        for name, tensor in weights.items()
    }


def with_averages(unet: Weights, factor: float) -> Weights:
    """A moving average for every weight of an original UNet, `factor` times the weight, as `ldm` names them."""
    averages = {"model_ema." + n.removeprefix("model.").replace(".", ""): t * factor for n, t in unet.items()}
    return {**unet, **averages, "model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(1)}


def original_vae(weights: Weights) -> Weights:
    """Under `first_stage_model.`; the decoder counts its levels from the other end, attention is 1x1 convolutions."""
    last = max(int(name.split(".")[2]) for name in weights if name.startswith("decoder.up_blocks"))
    found = {}
    for name, tensor in weights.items():
        renamed = _vae_name(name, last)
        linear = ".attn_1." in renamed and tensor.ndim == 2
        found["first_stage_model." + renamed] = tensor[:, :, None, None] if linear else tensor
    return found


def original_clip(weights: Weights) -> Weights:
    """CLIP's text encoder, as `ldm` keeps transformers' own (before 5.6): with the positions as a buffer."""
    found = {"cond_stage_model.transformer.text_model." + n.removeprefix("text_model."): t for n, t in weights.items()}
    length = next(len(tensor) for name, tensor in weights.items() if name.endswith("position_embedding.weight"))
    found["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(length)[None]
    return found


def original_open_clip(weights: Weights) -> Weights:
    """OpenCLIP's text encoder: query, key and value in one matrix, one more layer at the end, and a projection."""
    plain = {n.removeprefix("text_model."): t for n, t in weights.items()}
    prefix = "cond_stage_model.model."
    found = {
        prefix + "token_embedding.weight": plain["embeddings.token_embedding.weight"],
        prefix + "positional_embedding": plain["embeddings.position_embedding.weight"],
        prefix + "ln_final.weight": plain["final_layer_norm.weight"],
        prefix + "ln_final.bias": plain["final_layer_norm.bias"],
        prefix + "text_projection": torch.zeros_like(plain["encoder.layers.0.self_attn.q_proj.weight"]),
        prefix + "logit_scale": torch.tensor(4.6),
    }
    layers = 1 + max(int(name.split(".")[2]) for name in plain if name.startswith("encoder.layers."))
    for i in range(layers + 1):
        source, target = f"encoder.layers.{min(i, layers - 1)}.", f"{prefix}transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            parts = [plain[f"{source}self_attn.{p}_proj.{kind}"] for p in ("q", "k", "v")]
            found[f"{target}attn.in_proj_{kind}"] = torch.cat(parts)
            for ours, theirs in _OPEN_CLIP_LAYER.items():
                found[f"{target}{theirs}.{kind}"] = plain[f"{source}{ours}.{kind}"].clone()
    return found


def _unet_name(name: str, per_level: int, with_attention: set[str]) -> str:
    for ours, theirs in _UNET_PLAIN.items():
        if name.startswith(ours + "."):
            return _renamed(theirs + name.removeprefix(ours), _UNET_RESNET if "resnets" in ours else {})
    way, level, kind, index, rest = name.split(".", 4)
    if kind == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * per_level}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{(int(level) + 1) * per_level - 1}.{2 if level in with_attention else 1}.{rest}"
    number = int(level) * per_level + int(index)
    block = f"input_blocks.{1 + number}" if way == "down_blocks" else f"output_blocks.{number}"
    if kind == "attentions":
        return f"{block}.1.{rest}"
    return _renamed(f"{block}.0.{rest}", _UNET_RESNET)


def _vae_name(name: str, last: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{last - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
    if "mid_block.attentions.0" in name:
        return _renamed(name.replace("mid_block.attentions.0", "mid.attn_1"), _VAE_ATTENTION)
    return name


def _renamed(name: str, table: dict[str, str]) -> str:
    """`name` with the module right before its last part ("weight", "bias") replaced as `table` says."""
    for ours, theirs in table.items():
        if f".{ours}." in name:
            return name.replace(f".{ours}.", f".{theirs}.")
    return name
