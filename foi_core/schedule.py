"""Euler ancestral sampling (Karras et al. 2022; k-diffusion's `sample_euler_ancestral`) over edits at different
steps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

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
    """The last `strength` share of `num_inference_steps` steps, at least one (100 steps at 0.8 are 80). Several threads
    may share the scheduler: it stays as it is."""
    scheduler = copy.copy(scheduler)  # its steps are attributes, which `set_timesteps` replaces
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


class Coefficients(NamedTuple):
    """What each step multiplies by, (n,): with the step's sigma and the next one's,

    clean = skip * latents + out * prediction       the clean latents that a prediction stands for
    stepped = latents + drift * (latents - clean) + up * noise
    """

    input_scale: Tensor  # 1 / sqrt(sigma^2 + 1): the UNet wants latents of unit variance
    skip: Tensor
    out: Tensor
    drift: Tensor  # (sigma_down - sigma) / sigma
    up: Tensor  # sigma_up


def coefficients(sigmas: Tensor, prediction_type: str) -> Coefficients:
    """Of a schedule's `sigmas` (n + 1,), for predictions of noise ("epsilon") or of velocity."""
    sigma, sigma_next = sigmas[:-1], sigmas[1:]
    variance = sigma**2 + 1
    variance_up = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_down = (sigma_next**2 - variance_up).clamp_min(0).sqrt()
    noise = prediction_type == "epsilon"
    return Coefficients(
        input_scale=1 / variance.sqrt(),
        skip=torch.ones_like(sigma) if noise else 1 / variance,
        out=-sigma if noise else -sigma / variance.sqrt(),
        drift=(sigma_down - sigma) / sigma,
        up=variance_up.sqrt(),
    )


def denoised(latents: Tensor, prediction: Tensor, skip: Tensor, out: Tensor) -> Tensor:
    """The clean latents; all (n, C, h, w) or (n, 1, 1, 1)."""
    return torch.addcmul(skip * latents, out, prediction)


def euler_ancestral_step(latents: Tensor, clean: Tensor, drift: Tensor, up: Tensor, noise: Tensor) -> Tensor:
    """One step with fresh `noise`; all (n, C, h, w) or (n, 1, 1, 1): edits may be at different steps."""
    return torch.addcmul(torch.addcmul(latents, drift, latents - clean), up, noise)
