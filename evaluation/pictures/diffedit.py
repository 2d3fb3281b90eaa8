"""DiffEdit (Couairon et al., ICLR 2023), a baseline of the paper: diffusers' own, with a text-to-image model."""

from __future__ import annotations

import time

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionDiffEditPipeline
from PIL import Image

from evaluation.pictures.problems import UsageError
from foi_core import ModelFailure
from foi_core.model import choose_dtype

STEPS = 50  # diffusers' default
SIDE_MULTIPLE = 64  # the VAE's factor of 8 and the UNet's three halvings


class DiffEdit:
    """A text-to-image checkpoint under DiffEdit; its inputs are captions of both pictures, not an instruction."""

    def __init__(self, source: str, device: str) -> None:
        """`source` is a folder or model id in diffusers' layout with safetensors weights; raises UsageError for
        another."""
        try:
            pipeline = StableDiffusionDiffEditPipeline.from_pretrained(
                source,
                dtype=choose_dtype("auto", torch.device(device)),
                use_safetensors=True,
                low_cpu_mem_usage=False,
                safety_checker=None,
                feature_extractor=None,
                inverse_scheduler=None,
                requires_safety_checker=False,
            )
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"--diffedit-model {source} cannot be loaded: {error}") from error
        channels = pipeline.unet.config.in_channels
        if channels != pipeline.vae.config.latent_channels:
            raise UsageError(f"--diffedit-model {source} is no text-to-image model: its UNet takes {channels} channels")
        # Stable Diffusion's DDIM; the inverse scheduler knows no "linspace", which other samplers' settings may name.
        pipeline.scheduler = DDIMScheduler.from_config(
            pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False, timestep_spacing="leading"
        )
        pipeline.register_modules(inverse_scheduler=DDIMInverseScheduler.from_config(pipeline.scheduler.config))
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline.to(device)
        self._device = device

    def edit(
        self, picture: Image.Image, caption: str, target_caption: str, steps: int | None, seed: int
    ) -> tuple[Image.Image, Image.Image, float]:
        """The edited picture and DiffEdit's mask ("L"), both of the input's size, and seconds. Raises ModelFailure."""
        begun = time.perf_counter()
        pipeline, generator = self._pipeline, torch.Generator().manual_seed(seed)
        seen = picture.resize(self._model_size(picture.size), Image.Resampling.LANCZOS)
        count = STEPS if steps is None else steps
        mask = pipeline.generate_mask(
            image=seen,
            source_prompt=caption,
            target_prompt=target_caption,
            num_inference_steps=count,
            generator=generator,
        )
        inverted = pipeline.invert(prompt=caption, image=seen, num_inference_steps=count, generator=generator).latents
        decoded = pipeline(
            prompt=target_caption,
            negative_prompt=caption,
            mask_image=mask,
            image_latents=inverted,
            num_inference_steps=count,
            generator=generator,
            output_type="pt",
        ).images
        if not (torch.isfinite(inverted).all() and torch.isfinite(decoded).all()):
            raise ModelFailure("DiffEdit's model gave numbers that are not finite")
        (edited,) = pipeline.image_processor.numpy_to_pil(pipeline.image_processor.pt_to_numpy(decoded))
        shown = Image.fromarray((mask[0] > 0.5).astype("uint8") * 255).resize(picture.size, Image.Resampling.NEAREST)
        resized = edited.resize(picture.size, Image.Resampling.LANCZOS)
        return resized, shown, time.perf_counter() - begun

    def _model_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """`size` with the longer side at the model's own, both sides multiples of SIDE_MULTIPLE."""
        side = self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor
        scaled = (max(1, round(edge * side / max(size) / SIDE_MULTIPLE)) * SIDE_MULTIPLE for edge in size)
        width, height = scaled
        return width, height
