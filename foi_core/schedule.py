"""Euler ancestral sampling (Karras et al. 2022; k-diffusion's `sample_euler_ancestral`) over edits at different
steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import EulerAncestralDiscreteScheduler
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The steps that one edit runs: `timesteps` (n,), and `sigmas` (n + 1,) that end in 0. `start_sigma` scales the
    first noise."""

    timesteps: Tensor
    sigmas: Tensor
    start_sigma: float
    from_noise: bool

    def __len__(self) -> int:
        return len(self.timesteps)


def make_schedule(scheduler: EulerAncestralDiscreteScheduler, num_inference_steps: int, strength: float) -> Schedule:
    """The last `strength` share of `num_inference_steps` steps, at least one (100 steps at 0.8 are 80)."""
    scheduler.set_timesteps(num_inference_steps)
    skipped = num_inference_steps - max(1, int(num_inference_steps * strength + 1e-6))
    whole = skipped == 0 and strength == 1
    return Schedule(
        timesteps=scheduler.timesteps[skipped:].clone(),
        sigmas=scheduler.sigmas[skipped:].clone(),
        start_sigma=float(scheduler.init_noise_sigma if whole else scheduler.sigmas[skipped]),
        from_noise=whole,
    )


def start_latents(schedule: Schedule, source: Tensor, noise: Tensor) -> Tensor:
    """z at the first step: the picture's latents with noise added (SDEdit); noise alone at strength 1, as IP2P."""
    return noise * schedule.start_sigma if schedule.from_noise else source + noise * schedule.start_sigma


def model_input(latents: Tensor, sigma: Tensor) -> Tensor:
    """Latents as the UNet wants them: unit variance. `sigma` is (n, 1, 1, 1)."""
    return latents / (sigma**2 + 1).sqrt()


def denoised(latents: Tensor, prediction: Tensor, sigma: Tensor, prediction_type: str) -> Tensor:
    """The clean latents that a prediction stands for."""
    if prediction_type == "epsilon":
        return latents - sigma * prediction
    return latents / (sigma**2 + 1) - prediction * sigma / (sigma**2 + 1).sqrt()


def euler_ancestral_step(latents: Tensor, clean: Tensor, sigma: Tensor, sigma_next: Tensor, noise: Tensor) -> Tensor:
    """One step from `sigma` to `sigma_next` (each (n, 1, 1, 1)) with fresh `noise`; edits may be at different steps."""
    variance_up = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_up = variance_up.sqrt()
    sigma_down = (sigma_next**2 - variance_up).clamp_min(0).sqrt()
    direction = (latents - clean) / sigma
    return latents + direction * (sigma_down - sigma) + noise * sigma_up


def as_column(values: list[float], like: Tensor) -> Tensor:
    """One number an edit, (n, 1, 1, 1), on the device of `like`."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None, None, None]
