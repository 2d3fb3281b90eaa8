"""A checkpoint of the InstructPix2Pix family: loaded, checked, and used for encoding and decoding."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from foi_core.attention import CrossAttention
from foi_core.errors import InvalidParameter, UnsupportedCheckpoint
from foi_core.spec import EditSpec, ModelDefaults, SubInstruction

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

    @property
    def train_timesteps(self) -> int:
        return int(self.scheduler.config.num_train_timesteps)

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


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(model: str, device: str = "auto", dtype: str = "auto") -> Model:
    """Loads a folder or model id in diffusers' layout, or "demo": the bundled demo model.

    `device` is auto, cpu, cuda or cuda:N; `dtype` auto (float16 on CUDA, float32 on a CPU) or one of DTYPES. Weights
    are read from safetensors only: other formats can hold code. Raises UnsupportedCheckpoint and InvalidParameter.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    folder = _demo_folder() if model == "demo" else model
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
            folder,
            dtype=precision,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
        )
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        # diffusers raises any of these for a folder that is not a whole pipeline of this kind.
        raise UnsupportedCheckpoint(
            f"{model!r} cannot be loaded: {error}. Expected a folder or model id in diffusers' layout "
            "(model_index.json, unet, vae, text_encoder, tokenizer, scheduler) with safetensors weights."
        ) from error
    _check(model, pipeline)
    for network in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        network.eval().requires_grad_(False).to(place)
    longest = pipeline.text_encoder.config.max_position_embeddings
    pipeline.tokenizer.model_max_length = min(pipeline.tokenizer.model_max_length, longest)
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
        dtype=precision,
    )


def choose_device(device: str) -> torch.device:
    """ "auto" is the first CUDA device if there is one."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if count else "cpu")
    known = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if known is None or (device != "cpu" and int(known[1] or 0) >= count):
        present = f"cuda or cuda:0 to cuda:{count - 1}" if count else "(this torch sees no CUDA device)"
        raise InvalidParameter("device", device, f"auto, cpu, {present}")
    return torch.device(device)


def choose_dtype(dtype: str, place: torch.device) -> torch.dtype:
    """ "auto" is half precision where it is fast."""
    if dtype == "auto":
        return torch.float16 if place.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise InvalidParameter("dtype", dtype, f"auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _demo_folder() -> str:
    """Beside this package, in the project's folder and in its wheel alike."""
    folder = Path(__file__).parent.parent / "demo" / "model"
    if not (folder / "model_index.json").is_file():
        raise UnsupportedCheckpoint(f"the demo model is not installed: {folder} has no model_index.json")
    return str(folder)


def _check(name: str, pipeline: StableDiffusionInstructPix2PixPipeline) -> None:
    """Everything that would otherwise fail in the middle of an edit."""
    unet, latent_channels = pipeline.unet.config, pipeline.vae.config.latent_channels
    if unet.in_channels != 2 * latent_channels or unet.out_channels != latent_channels:
        raise UnsupportedCheckpoint(
            f"{name!r} is not an InstructPix2Pix model: its UNet takes {unet.in_channels} channels, "
            f"not {2 * latent_channels} (noisy latent and image latent). A plain text-to-image checkpoint cannot edit."
        )
    if unet.addition_embed_type is not None or unet.cross_attention_dim != pipeline.text_encoder.config.hidden_size:
        raise UnsupportedCheckpoint(f"{name!r} has more than one text encoder (SDXL), which is not supported yet.")
    if not pipeline.tokenizer.is_fast:
        raise UnsupportedCheckpoint(f"{name!r} has a tokenizer without character offsets, which keywords need.")
    if pipeline.scheduler.config.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        raise UnsupportedCheckpoint(f"{name!r} predicts neither noise nor velocity; its scheduler is not supported.")


def _read_defaults(folder: Path) -> ModelDefaults:
    """A folder's own defaults, if it has any; a model id has none."""
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return ModelDefaults()
    try:
        given = json.loads(path.read_text())
        if isinstance(given.get("threshold"), list):
            given["threshold"] = tuple(given["threshold"])
        defaults = ModelDefaults(**given)
        EditSpec((SubInstruction("x"),)).with_defaults(defaults, seed=0)
    except (ValueError, TypeError, AttributeError) as error:
        raise UnsupportedCheckpoint(f"{path}: {error}") from error
    return defaults
