"""A complete InstructPix2Pix checkpoint with random weights, small enough to be made in a second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo.edits import vocabulary
from demo.models import build_tokenizer
from evaluation.checkpoints.architectures import SD1

LATENT_CHANNELS = 4
TOKENS = 77
UNET = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
}
VAE = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 64,
}


def build_tiny_sd1(folder: Path) -> Path:
    """Stable Diffusion 1.5's own blocks, layers and heads, with few channels and small pictures: 128x128 pictures are
    16x16 latents, from where the maps come."""
    unet = {**SD1.unet, "block_out_channels": (16, 16, 32, 32)}
    vae = {**SD1.vae, "block_out_channels": (8, 8, 16, 16), "sample_size": 128}
    return build_tiny_model(folder, sample_size=16, unet=unet, vae=vae)


def build_tiny_model(
    folder: Path,
    prediction_type: str = "epsilon",
    sample_size: int = 32,
    unet_channels: int = 8,
    unet: Mapping[str, Any] = UNET,
    vae: Mapping[str, Any] = VAE,
) -> Path:
    """Writes the checkpoint to `folder`, and returns it. 64x64 pictures are 32x32 latents; maps come from 16x16."""
    torch.manual_seed(0)
    tokenizer: CLIPTokenizer = build_tokenizer(vocabulary())
    tokenizer.model_max_length = TOKENS
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    sizes = {"cross_attention_dim": 32, "norm_num_groups": 8, "sample_size": sample_size}
    channels = {"in_channels": unet_channels, "out_channels": LATENT_CHANNELS}
    denoiser = UNet2DConditionModel(**{**unet, **sizes, **channels})
    coder = AutoencoderKL(**{**vae, "latent_channels": LATENT_CHANNELS, "norm_num_groups": 4})
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    )
    pipeline = StableDiffusionInstructPix2PixPipeline(
        coder, text_encoder, tokenizer, denoiser, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
