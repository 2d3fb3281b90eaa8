"""A loaded checkpoint of the InstructPix2Pix family: its networks, used for encoding and decoding."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from foi_core import attention, images
from foi_core.errors import InvalidParameter
from foi_core.safety import SafetyChecker
from foi_core.spec import ModelDefaults
from foi_core.unet import UNet

DEFAULTS_FILE = "foi.json"  # beside model_index.json: a checkpoint's own ModelDefaults


@dataclass
class Model:
    """The networks on their device. `safety` looks at results; None: nothing does."""

    name: str
    unet: UNet
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerBase
    scheduler: EulerAncestralDiscreteScheduler
    defaults: ModelDefaults
    device: torch.device
    dtype: torch.dtype
    safety: SafetyChecker | None = None

    @property
    def latent_factor(self) -> int:
        """Pixels of a latent cell's side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def resolution(self) -> int:
        """Native side in pixels."""
        return self.unet.native_size * self.latent_factor

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height at which a picture of `size` is edited."""
        return images.model_size(*size, self.resolution)

    @property
    def map_level(self) -> int:
        """The UNet's level whose attention the masks are made of."""
        return attention.map_level(self.unet.attention_levels, self.unet.native_size)

    @property
    def train_timesteps(self) -> int:
        return int(self.scheduler.config.num_train_timesteps)

    def encode_text(self, ids: tuple[int, ...]) -> Tensor:
        """Token ids -> every cross-attention's keys and values, (1, tokens, keys and values)."""
        return self.unet.text(self.text_encoder(torch.tensor([ids], device=self.device)).last_hidden_state)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(1, 3, H, W) in [-1, 1] -> IP2P's image latents: the mode, unscaled, (1, C, h, w)."""
        latents: Tensor = self.vae.encode(pixels.to(self.device, self.dtype)).latent_dist.mode()
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (1, C, h, w) -> (1, 3, H, W) in [-1, 1]."""
        pixels: Tensor = self.vae.decode(latents.to(self.dtype) / self.vae.config.scaling_factor).sample
        return pixels


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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
    """ "auto" is float16 on CUDA and float32 on a CPU.

    Every CPU computes float32 fast, and a seed's result is then the same on all of them to within rounding. The gain of
    bfloat16 depends on the CPU and on the model, and choosing it by a measurement could change results from one start
    to the next: whoever wants it asks for it. Raises InvalidParameter.
    """
    if dtype == "auto":
        return torch.float16 if place.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise InvalidParameter("dtype", dtype, f"auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def autocast(place: torch.device) -> torch.autocast:
    """For training: bfloat16 where the device computes it at least as fast as float32, else no change of precision."""
    if place.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = slowdown(torch.bfloat16) <= 1
    return torch.autocast(place.type, torch.bfloat16, enabled=fast)


@cache
def slowdown(dtype: torch.dtype) -> float:
    """Time of a small convolution and a matrix product on this CPU, relative to float32. Measured once.

    A CPU without instructions for a half precision computes it some 20 to 100 times slower: its libraries then use a
    plain loop. No flag of the CPU tells which precisions the libraries have fast code for, so this measures it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # then the time of this thread is all that counts, whatever else runs beside it
    try:
        return _seconds(dtype) / _seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _seconds(dtype: torch.dtype, runs: int = 5) -> float:
    """CPU time of the fastest run after a first one."""
    pixels, kernel = torch.ones(3, 64, 16, 16, dtype=dtype), torch.ones(64, 64, 3, 3, dtype=dtype)
    matrix = torch.ones(256, 256, dtype=dtype)
    times = []
    for _ in range(runs + 1):
        start = time.thread_time()
        F.conv2d(pixels, kernel, padding=1)
        matrix @ matrix
        times.append(time.thread_time() - start)
    return min(times[1:])
