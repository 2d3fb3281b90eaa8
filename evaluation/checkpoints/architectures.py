"""The shapes that original checkpoints have, which their own files do not carry: SD 1.x's and SD 2.x's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
"""Of every checkpoint here: linear_start, linear_end and timesteps in InstructPix2Pix's configs/generate.yaml, HIVE's
configs/generate_v21_base.yaml and InstructDiffusion's configs/instruct_diffusion.yaml. HIVE's SD 2.1 is the "base"
one (v2-1_512), which predicts noise, not velocity."""

_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}

_UNET: dict[str, Any] = {
    "in_channels": 8,  # noisy latent and image latent
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "layers_per_block": 2,
}


@dataclass(frozen=True)
class Architecture:
    """Arguments of diffusers' UNet and VAE and of transformers' CLIPTextConfig.

    `pad` is the token that texts are padded with: part of the model, because it sees the padding too.
    """

    name: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    pad: str


SD1 = Architecture(
    name="sd1",
    unet={**_UNET, "cross_attention_dim": 768, "attention_head_dim": 8},
    vae=_VAE,
    # CLIP ViT-L/14's text encoder
    text={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
    },
    pad="<|endoftext|>",
)

SD2 = Architecture(
    name="sd2",
    # HIVE's file says num_heads: 8 beside num_head_channels: 64; its UNet lets the latter win (openaimodel_v21.py),
    # so heads are channels / 64. "attention_head_dim" is diffusers' historical name for the number of heads.
    unet={
        **_UNET,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    vae=_VAE,
    # OpenCLIP ViT-H/14's text encoder without its last layer: these models use the penultimate one
    text={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 512,
    },
    pad="!",
)

ARCHITECTURES = {"sd1": SD1, "sd2": SD2}
