"""A complete InstructPix2Pix checkpoint with random finite weights: as fast as a trained one, and never downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from demo.edits import vocabulary
from demo.models import build_tokenizer

LATENT_CHANNELS = 4
TOKENS = 77


@dataclass(frozen=True)
class Shape:
    """What the three networks' own classes are given."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]


SD15 = Shape(
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    vae={
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    },
    text={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
)
"""InstructPix2Pix's own: the UNet of Stable Diffusion 1.5 with eight input channels."""

TINY = Shape(
    unet={
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    },
    vae={
        "sample_size": 64,
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "norm_num_groups": 4,
    },
    text={
        "vocab_size": 1024,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
)
"""64x64 pictures are 16x16 latents. Its speed says nothing."""


def random_pipeline(
    shape: Shape, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> StableDiffusionInstructPix2PixPipeline:
    """The pipeline on `device`, where its weights are drawn: on a GPU that takes no time.

    The words of the demo's world are one token each, as CLIP's own vocabulary would have them; the rest of the
    embedding is there but never read.
    """
    tokenizer = build_tokenizer(vocabulary())
    tokenizer.model_max_length = TOKENS
    text = CLIPTextConfig(
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape.text,
    )
    torch.manual_seed(seed)
    with device:
        text_encoder = CLIPTextModel(text)
        unet = UNet2DConditionModel(in_channels=2 * LATENT_CHANNELS, out_channels=LATENT_CHANNELS, **shape.unet)
        vae = AutoencoderKL(latent_channels=LATENT_CHANNELS, **shape.vae)
    scheduler = EulerAncestralDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    return pipeline.to(dtype=dtype)


def write_random_checkpoint(folder: Path, shape: Shape, device: torch.device, dtype: torch.dtype) -> Path:
    """Writes the checkpoint in diffusers' layout to `folder`, and returns it."""
    random_pipeline(shape, device, dtype).save_pretrained(folder, safe_serialization=True)
    return folder
