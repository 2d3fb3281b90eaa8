"""Original checkpoints in small, of both bases, and what they were made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from demo.edits import vocabulary
from demo.models import build_tokenizer
from evaluation.checkpoints import original_names
from evaluation.checkpoints.architectures import SD1, SD2, Architecture

_VAE = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "scaling_factor": 0.18215,
}
_UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
}
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}

TINY = {
    "sd1": Architecture("sd1", {**_UNET, "attention_head_dim": 2}, _VAE, _TEXT, SD1.pad),
    "sd2": Architecture(
        "sd2",
        {**_UNET, "attention_head_dim": (1, 2, 2), "use_linear_projection": True},
        _VAE,
        {**_TEXT, "hidden_act": "gelu"},
        SD2.pad,
    ),
}


@dataclass(frozen=True)
class Original:
    """`weights` as an original checkpoint names them, and the modules that they are."""

    weights: dict[str, Tensor]
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel


def tiny_original(base: str, tokenizer: Path) -> Original:
    """An original checkpoint of random weights; its tokenizer goes to the folder `tokenizer`."""
    torch.manual_seed(0)
    words = build_tokenizer(vocabulary())
    words.model_max_length = 77
    words.save_pretrained(tokenizer)
    architecture = TINY[base]
    unet = UNet2DConditionModel(**architecture.unet, sample_size=32)
    vae = AutoencoderKL(**architecture.vae, sample_size=64)
    text = CLIPTextModel(CLIPTextConfig(**architecture.text, vocab_size=len(words), max_position_embeddings=77))
    _randomise(unet, vae, text)
    as_text = original_names.original_clip if base == "sd1" else original_names.original_open_clip
    weights = {
        **original_names.original_unet(dict(unet.state_dict()), architecture.unet["layers_per_block"]),
        **original_names.original_vae(dict(vae.state_dict())),
        **as_text(dict(text.state_dict())),
        "betas": torch.linspace(0, 1, 1000),
    }
    return Original(weights, unet, vae, text)


def _randomise(*modules: nn.Module) -> None:
    """Every parameter its own: norms start as ones and zeros, where a mix-up could not be seen."""
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
