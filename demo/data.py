"""Stage 2 of `python -m demo.train`: edits of the procedural world, encoded once by the VAE and kept as latents.

A shard holds SCENES_PER_SHARD scenes; each scene has EDITS_PER_SCENE samples: single edits, and a composite as the
last. Seeds: training below 1,000,000, tuning from 10,000,000, reported results from 20,000,000. They never mix.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from demo.edits import Edit, join, random_edit, random_edits
from demo.scenes import Scene, random_scene, render
from demo.train_vae import to_tensor
from foi_core.model import autocast

SCENES_PER_SHARD = 500
EDITS_PER_SCENE = 5
MAX_PARTS = 3
CELL = 8  # pixels of a latent cell
TUNING_SEED, REPORTED_SEED = 10_000_000, 20_000_000


@dataclass(frozen=True)
class Sample:
    """One training pair in pixels: pictures (128, 128, 3) uint8, regions (k, 16, 16) in [0, 1]."""

    text: str
    keyword_spans: tuple[tuple[int, int], ...]  # characters of `text`, one span a sub-instruction
    source: np.ndarray
    target: np.ndarray
    regions: np.ndarray


def make_sample(rng: np.random.Generator, scene: Scene, edits: list[Edit]) -> Sample:
    text = join(rng, edits)
    spans, after, at = [], scene, 0
    for edit in edits:
        at = text.index(edit.instruction, at)
        start = at + edit.instruction.index(edit.keyword)
        spans.append((start, start + len(edit.keyword)))
        after = edit.apply(after)
    regions = np.stack([_cells(edit.region(scene)) for edit in edits])
    return Sample(text, tuple(spans), render(scene), render(after), regions)


def scene_samples(seed: int) -> list[Sample]:
    """All samples of one training scene."""
    rng = np.random.default_rng([11, seed])
    scene = random_scene(rng)
    singles = [[random_edit(rng, scene)] for _ in range(EDITS_PER_SCENE - 1)]
    composite = random_edits(rng, scene, int(rng.integers(2, MAX_PARTS + 1)))
    return [make_sample(rng, scene, edits) for edits in (*singles, composite)]


def make_shards(folder: Path, vae: AutoencoderKL, shards: int, workers: int, device: torch.device) -> list[Path]:
    """Writes the missing ones of `shards` shards and returns the paths of all, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:04d}.npz" for i in range(shards)]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if missing:
        with get_context("spawn").Pool(workers) as pool:
            for i in missing:
                seeds = range(i * SCENES_PER_SHARD, (i + 1) * SCENES_PER_SHARD)
                samples = [s for group in pool.map(scene_samples, seeds, chunksize=10) for s in group]
                _write(paths[i], samples, vae, device)
                print(f"data {i + 1}/{shards} shards", flush=True)
    return paths


def load_shards(paths: list[Path]) -> tuple[dict[str, Tensor], list[str], list[list[list[int]]]]:
    """Tensors (source, target: (n, 4, 16, 16); regions: (n, MAX_PARTS, 16, 16)), texts, and keyword spans."""
    parts = [np.load(path) for path in paths]
    tensors = {k: torch.from_numpy(np.concatenate([p[k] for p in parts])) for k in ("source", "target", "regions")}
    words = [json.loads(str(p["words"])) for p in parts]
    return tensors, [w[0] for part in words for w in part], [w[1] for part in words for w in part]


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray, device: torch.device) -> Tensor:
    """(n, 128, 128, 3) uint8 -> unscaled latents (n, 4, 16, 16), the distribution's mode as IP2P does."""
    with autocast(device):
        batches = (to_tensor(images[i : i + 32], device) for i in range(0, len(images), 32))
        return torch.cat([vae.encode(batch).latent_dist.mode().float() for batch in batches])


def _write(path: Path, samples: list[Sample], vae: AutoencoderKL, device: torch.device) -> None:
    regions = np.zeros((len(samples), MAX_PARTS, 16, 16), np.float16)
    for i, sample in enumerate(samples):
        regions[i, : len(sample.regions)] = sample.regions
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        source=encode(vae, np.stack([s.source for s in samples[::EDITS_PER_SCENE]]), device)
        .half()
        .cpu()
        .numpy()
        .repeat(EDITS_PER_SCENE, 0),
        target=encode(vae, np.stack([s.target for s in samples]), device).half().cpu().numpy(),
        regions=regions,
        words=json.dumps([(s.text, s.keyword_spans) for s in samples]),
    )
    temporary.replace(path)


def _cells(region: np.ndarray) -> np.ndarray:
    """Share of each 8x8 cell that the region covers, (16, 16)."""
    n = region.shape[0] // CELL
    cells: np.ndarray = region.reshape(n, CELL, n, CELL).mean((1, 3)).astype(np.float16)
    return cells
