"""Pictures of the procedural world as latents: drawn on all cores, encoded once, kept on disk in shards.

Everything else about a picture follows from its seed, so only latents are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from demo.data import encode

SHARD = 1000  # seeds


def cached(
    folder: Path,
    vae: AutoencoderKL,
    pictures: Callable[[int], np.ndarray],
    seeds: range,
    workers: int,
) -> Tensor:
    """Unscaled latents (len(seeds), pictures of a seed, 4, 16, 16) in float16; what `folder` lacks is made first.

    `pictures` maps a seed to (n, 128, 128, 3) uint8.
    """
    folder = folder / fingerprint(vae)
    folder.mkdir(parents=True, exist_ok=True)
    shards = [seeds[i : i + SHARD] for i in range(0, len(seeds), SHARD)]
    paths = {shard: folder / f"{shard.start}-{shard.stop}.npy" for shard in shards}
    missing = [shard for shard in shards if not paths[shard].exists()]
    draw: Callable[[Callable[[int], np.ndarray], range], Iterable[np.ndarray]] = map
    with ExitStack() as stack:
        if missing and workers > 1:
            draw = partial(stack.enter_context(get_context("spawn").Pool(workers)).map, chunksize=50)
        for done, shard in enumerate(missing, 1):
            drawn = np.stack(list(draw(pictures, shard)))
            latents = encode(vae, drawn.reshape(-1, *drawn.shape[2:]), vae.device)
            temporary = paths[shard].with_suffix(".tmp.npy")
            np.save(temporary, latents.unflatten(0, drawn.shape[:2]).half().cpu().numpy())
            temporary.replace(paths[shard])
            print(f"latents {done}/{len(missing)} shards of {SHARD} scenes", flush=True)
    return torch.from_numpy(np.concatenate([np.load(paths[shard]) for shard in shards]))


def fingerprint(vae: AutoencoderKL) -> str:
    """Latents belong to the encoder that made them."""
    encoder = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]
    weights = torch.cat([p.detach().flatten() for p in encoder]).half().cpu()
    return hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:12]
