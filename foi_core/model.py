"""A checkpoint of the InstructPix2Pix family: loaded, checked, and used for encoding and decoding."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from foi_core.attention import CrossAttention
from foi_core.errors import InvalidParameter, UnsupportedCheckpoint
from foi_core.spec import ModelDefaults

DEFAULTS_FILE = "foi.json"  # beside model_index.json: a checkpoint's own ModelDefaults


@dataclass
class Model:
    """The networks on their device. The UNet's cross-attention is already under `cross_attention`."""

    name: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerBase
    scheduler: EulerAncestralDiscreteScheduler
    cross_attention: CrossAttention
    defaults: ModelDefaults
    device: torch.device
    dtype: torch.dtype

    @property
    def latent_factor(self) -> int:
        """Pixels of a latent cell's side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def resolution(self) -> int:
        """Native side in pixels."""
        native = self.unet.config.sample_size
        return int(min(native) if isinstance(native, list | tuple) else native) * self.latent_factor

    def encode_text(self, ids: tuple[int, ...]) -> Tensor:
        """Token ids -> (1, tokens, width)."""
        states: Tensor = self.text_encoder(torch.tensor([ids], device=self.device)).last_hidden_state
        return states

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(1, 3, H, W) in [-1, 1] -> IP2P's image latents: the mode, unscaled, (1, C, h, w)."""
        latents: Tensor = self.vae.encode(pixels.to(self.device, self.dtype)).latent_dist.mode()
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (1, C, h, w) -> (1, 3, H, W) in [-1, 1]."""
        pixels: Tensor = self.vae.decode(latents.to(self.dtype) / self.vae.config.scaling_factor).sample
        return pixels


def load(model: str, device: str = "auto") -> Model:
    """Loads a folder or model id in diffusers' layout, or "demo": the bundled demo model.

    `device` is auto, cpu, cuda or cuda:N. Half precision on CUDA, float32 on a CPU. Weights are read from safetensors
    only.
    """
    place = choose_device(device)
    dtype = torch.float16 if place.type == "cuda" else torch.float32
    folder = _demo_folder() if model == "demo" else model
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UnsupportedCheckpoint(
            f"{model!r} cannot be loaded: {error}. Expected a folder or model id in diffusers' layout "
            "(model_index.json, unet, vae, text_encoder, tokenizer, scheduler) with safetensors weights."
        ) from error
    _check(model, pipeline)
    for network in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        network.eval().requires_grad_(False).to(place)
    return Model(
        name=model,
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler=EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config),
        cross_attention=CrossAttention(pipeline.unet),
        defaults=_read_defaults(Path(folder)),
        device=place,
        dtype=dtype,
    )


def choose_device(device: str) -> torch.device:
    """ "auto" is the first CUDA device if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        place = torch.device("meta")
    if place.type not in ("cpu", "cuda") or (place.type == "cuda" and not torch.cuda.is_available()):
        present = "auto, cpu" + (
            ", cuda or cuda:N" if torch.cuda.is_available() else " (this torch sees no CUDA device)"
        )
        raise InvalidParameter("device", device, present)
    return place


def _demo_folder() -> str:
    spec = importlib.util.find_spec("demo")
    if spec is None or spec.origin is None:
        raise UnsupportedCheckpoint(
            "the demo model is not installed: run from the project's folder, or install its wheel"
        )
    return str(Path(spec.origin).parent / "model")


def _check(name: str, pipeline: StableDiffusionInstructPix2PixPipeline) -> None:
    latent_channels = pipeline.vae.config.latent_channels
    if pipeline.unet.config.in_channels != 2 * latent_channels:
        raise UnsupportedCheckpoint(
            f"{name!r} is not an InstructPix2Pix model: its UNet takes {pipeline.unet.config.in_channels} channels, "
            f"not {2 * latent_channels} (noisy latent and image latent). A plain text-to-image checkpoint cannot edit."
        )
    if not pipeline.tokenizer.is_fast:
        raise UnsupportedCheckpoint(f"{name!r} has a tokenizer without character offsets, which keywords need.")
    if pipeline.scheduler.config.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        raise UnsupportedCheckpoint(f"{name!r} predicts neither noise nor velocity; its scheduler is not supported.")


def _read_defaults(folder: Path) -> ModelDefaults:
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return ModelDefaults()
    given = json.loads(path.read_text())
    if unknown := given.keys() - {f.name for f in fields(ModelDefaults)}:
        raise UnsupportedCheckpoint(f"{path}: unknown settings {sorted(unknown)}")
    if isinstance(given.get("threshold"), list):
        given["threshold"] = tuple(given["threshold"])
    return ModelDefaults(**given)
