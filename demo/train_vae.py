"""Stage 1 of `python -m demo.train`: the VAE, from nothing, on pictures of the procedural world.

`refine_decoder` goes on with the decoder alone: latents stay what they are, so a UNet that was trained on them fits.
"""

from __future__ import annotations

import copy
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from demo.edits import random_edits
from demo.models import LATENT_CHANNELS, build_vae
from demo.scenes import random_scene, render
from foi_core.model import autocast

PICTURES = 5000
BATCH = 8
WARMUP = 50  # optimiser steps
LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-6
TIE_WEIGHT = 0.05  # three channels follow the downsampled RGB: without it, channels die (demo card)
EDGE_WEIGHT = 0.5
DECODER_RATE, DECODER_EMA = 1e-3, 0.995
HELD_OUT = range(10_000_000, 10_000_032)


def pictures(seeds: range) -> np.ndarray:
    """One picture a seed, before or after a few edits, so that hats, suns and nights are seen too: (n, 128, 128, 3)."""
    result = []
    for seed in seeds:
        rng = np.random.default_rng([7, seed])
        scene = random_scene(rng)
        for edit in random_edits(rng, scene, int(rng.integers(0, 4))):
            scene = edit.apply(scene)
        if rng.random() < 0.05:
            scene = random_scene(rng)
        result.append(render(scene))
    return np.stack(result)


def to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(vae: AutoencoderKL, images: Tensor) -> float:
    """Reconstruction of held-out pictures, dB on the 0..1 range."""
    with torch.no_grad():
        decoded = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return float(-10 * torch.log10(((decoded - images) / 2).pow(2).mean()))


def train(folder: Path, minutes: float, device: torch.device, workers: int) -> AutoencoderKL:
    """Trains for `minutes` of wall time in all, counting the legs that an interrupted run already did."""
    checkpoint = folder / "vae.pt"
    vae = build_vae().to(device)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    spent, done = 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        vae.load_state_dict(state["vae"])
        if state["finished"]:
            return vae.eval()
        optimiser.load_state_dict(state["optimiser"])
        spent, done = state["seconds"], state["images"]

    held_out = to_tensor(pictures(HELD_OUT), device)
    seen = _many_pictures(range(PICTURES), workers)
    start, last_save = time.monotonic() - spent, time.monotonic()
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        batch = to_tensor(seen[np.random.randint(len(seen), size=BATCH)], device)
        crop = 64 if share < 0.85 else 128
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (done + 1) / (BATCH * WARMUP)) * (1 - share) + 1e-5
        with autocast(device):
            loss = _loss(vae, _crop(batch, crop))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        done += len(batch)
        if time.monotonic() - last_save > 30:
            last_save = time.monotonic()
            print(
                f"vae {100 * share:3.0f}%  {done} pictures  {psnr(vae, held_out):.2f} dB on held-out pictures",
                flush=True,
            )
            _save(checkpoint, vae, optimiser, time.monotonic() - start, done, finished=False)
    vae.eval()
    _whiten(vae, to_tensor(pictures(range(9_000_000, 9_000_256)), device))
    print(f"vae done: {done} pictures, {psnr(vae, held_out):.2f} dB", flush=True)
    _save(checkpoint, vae, optimiser, time.monotonic() - start, done, finished=True)
    return vae


def refine_decoder(folder: Path, vae: AutoencoderKL, minutes: float, device: torch.device, workers: int) -> None:
    """Trains the decoder on, in place, on the fixed latents of the frozen encoder; keeps its moving average.

    `minutes` of wall time in all, counting the legs that an interrupted run already did.
    """
    checkpoint = folder / "decoder.pt"
    parts = nn.ModuleList([vae.post_quant_conv, vae.decoder])
    average = copy.deepcopy(parts)
    optimiser = torch.optim.AdamW(parts.parameters(), lr=DECODER_RATE, weight_decay=1e-4)
    spent, done = 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        parts.load_state_dict(state["parts"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        spent, done = state["seconds"], state["images"]
    held_out = to_tensor(pictures(HELD_OUT), device)
    if spent < 60 * minutes:
        seen = _many_pictures(range(PICTURES, 2 * PICTURES), workers)
        with torch.no_grad():
            latents = torch.cat(
                [vae.encode(to_tensor(b, device)).latent_dist.mode() for b in np.split(seen, len(seen) // 50)]
            )
    start, last_save = time.monotonic() - spent, time.monotonic()

    def save_decoder() -> None:
        state = {"parts": parts.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        write_state(checkpoint, {**state, "seconds": time.monotonic() - start, "images": done})

    while (spent := time.monotonic() - start) < 60 * minutes:
        share = spent / (60 * minutes)
        rows = np.random.randint(len(seen), size=BATCH)
        batch = to_tensor(seen[rows], device)
        for group in optimiser.param_groups:
            group["lr"] = DECODER_RATE * min(1, (done + 1) / (BATCH * WARMUP)) * (1 - share) + 1e-6
        with autocast(device):
            error = vae.decode(latents[rows]).sample - batch
        error = error.float()
        edges = sum(error.diff(dim=d).abs().mean() for d in (2, 3))
        loss = error.abs().mean() + 4 * error.pow(2).mean() + EDGE_WEIGHT * edges
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimiser.step()
        done += len(batch)
        decay = min(DECODER_EMA, done / (done + 100 * BATCH))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(parts.parameters()), 1 - decay)
        if time.monotonic() - last_save > 30:
            last_save = time.monotonic()
            save_decoder()
            print(f"decoder {100 * share:3.0f}%  {done} pictures  {psnr(vae, held_out):.2f} dB", flush=True)
    save_decoder()
    parts.load_state_dict(average.state_dict())
    vae.eval()
    print(f"decoder done: {done} pictures, {psnr(vae, held_out):.2f} dB on held-out pictures", flush=True)


def _many_pictures(seeds: range, workers: int) -> np.ndarray:
    with get_context("spawn").Pool(workers) as pool:
        return np.concatenate(pool.map(pictures, [seeds[i : i + 100] for i in range(0, len(seeds), 100)]))


def _loss(vae: AutoencoderKL, images: Tensor) -> Tensor:
    posterior = vae.encode(images).latent_dist
    latents = posterior.sample()
    decoded = vae.decode(latents).sample
    error = decoded - images
    edges = sum(error.diff(dim=d).abs().mean() for d in (2, 3))
    small = F.avg_pool2d(images, 8)
    tie = (posterior.mean[:, :3] - 2 * small).abs().mean()
    kl = posterior.kl().mean() / latents[0].numel()
    total: Tensor = error.abs().mean() + error.pow(2).mean() + EDGE_WEIGHT * edges + TIE_WEIGHT * tie + KL_WEIGHT * kl
    return total


def _crop(images: Tensor, size: int) -> Tensor:
    """One random crop on the 8-pixel grid, the same for the whole batch."""
    top, left = (8 * int(torch.randint(0, (128 - size) // 8 + 1, ())) for _ in range(2))
    return images[:, :, top : top + size, left : left + size]


@torch.no_grad()
def _whiten(vae: AutoencoderKL, images: Tensor) -> None:
    """Folds ZCA whitening into the 1x1 convolutions around the latent: every direction then has unit variance."""
    c = LATENT_CHANNELS
    latents = vae.encode(images).latent_dist.mode()
    flat = latents.movedim(1, 0).flatten(1).double()  # (c, n)
    mean = flat.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    whiten = (vectors * values.rsqrt()) @ vectors.T
    colour = (vectors * values.sqrt()) @ vectors.T
    before, after = vae.quant_conv, vae.post_quant_conv
    weight, bias = before.weight[:c, :, 0, 0].double(), before.bias[:c].double()
    before.weight[:c, :, 0, 0] = (whiten @ weight).float()
    before.bias[:c] = (whiten @ (bias - mean)).float()
    weight, bias = after.weight[:, :, 0, 0].double(), after.bias.double()
    after.bias.copy_((bias + weight @ mean).float())
    after.weight[:, :, 0, 0] = (weight @ colour).float()


def _save(
    path: Path, vae: AutoencoderKL, optimiser: torch.optim.Optimizer, seconds: float, images: int, *, finished: bool
) -> None:
    state = {"vae": vae.state_dict(), "seconds": seconds, "images": images, "finished": finished}
    if not finished:
        state["optimiser"] = optimiser.state_dict()
    write_state(path, state)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """A checkpoint that is whole or not there."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)
