"""A checkpoint of Stable Diffusion 1.5's real size with random weights, written in seconds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from demo.edits import vocabulary
from demo.models import build_tokenizer
from evaluation.checkpoints.architectures import SCHEDULER, SD1
from evaluation.checkpoints.folder import INDEX, NETWORKS

SIDE = 128  # pixels: the shapes of the weights do not depend on it, the time of a step does
TOKENS = 77
VOCABULARY = 49408  # CLIP's


def write_full_size(folder: Path) -> Path:
    """Writes 2 GB to `folder`, and returns it: float16, and small enough that nothing overflows."""
    tokenizer = build_tokenizer(vocabulary())
    tokenizer.model_max_length = TOKENS
    text = CLIPTextConfig(
        **SD1.text,
        vocab_size=VOCABULARY,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with init_empty_weights():
        networks = {
            "unet": UNet2DConditionModel(**SD1.unet, sample_size=SIDE // 8),
            "vae": AutoencoderKL(**SD1.vae, sample_size=SIDE),
            "text_encoder": CLIPTextModel(text),
        }
    noise = torch.randn(2**18, generator=torch.Generator().manual_seed(0))
    for part, network in networks.items():
        (folder / part).mkdir(parents=True)
        network.config.save_pretrained(folder / part) if part == "text_encoder" else network.save_config(folder / part)
        save_file(_weights(network, noise), folder / part / NETWORKS[part][1], metadata={"format": "pt"})
    tokenizer.save_pretrained(folder / "tokenizer")
    EulerAncestralDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder


def _weights(network: nn.Module, noise: Tensor) -> dict[str, Tensor]:
    """Scaled as an initialisation would: norms are 1, biases 0, the rest pieces of `noise`."""
    found = {}
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            found[name] = torch.full_like(parameter, float(name.endswith("weight")), device="cpu")
        else:
            scaled = (noise / math.sqrt(parameter[0].numel())).half()
            times = -(-parameter.numel() // len(scaled))
            found[name] = scaled.repeat(times)[: parameter.numel()].view(parameter.shape)
        found[name] = found[name].half()
    return found
