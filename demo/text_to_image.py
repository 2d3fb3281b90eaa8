"""Stage 1 of the two-stage recipe: a text-to-image model of the procedural world, from nothing, on captions alone.

Text encoder and UNet learn together. No loss looks at attention.

Some pictures have been edited, and their text is the instruction ("make the sky orange", with an orange sky): the text
encoder is frozen afterwards, so it has to hear an instruction's words here, as CLIP has heard all words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from demo.captions import random_caption
from demo.data import TUNING_SEED
from demo.edits import random_edit
from demo.grounding import Probe, Question, cells
from demo.latents import cached
from demo.loop import Plan, train
from demo.models import (
    LATENT_CHANNELS,
    MAX_TOKENS,
    Networks,
    Shape,
    build_scheduler,
    build_text_encoder,
    build_unet,
    token_columns,
    token_ids,
)
from demo.scenes import GROUND, SKY, Scene, World, labels, random_scene, render
from demo.train_unet import noised, record_cross_attention
from foi_core.model import autocast

NULL_SHARE = 0.1
INSTRUCTION_SHARE = 0.15  # of the pictures
PROBED = 128  # held-out scenes

_STREAM = 13


def shown(world: World, seed: int) -> tuple[Scene, str | None]:
    """A scene, and the instruction that led to it; None for most."""
    rng = np.random.default_rng([_STREAM, seed])
    scene = random_scene(rng, world)
    if rng.random() >= INSTRUCTION_SHARE:
        return scene, None
    edit = random_edit(rng, scene, world=world)
    return edit.apply(scene), edit.instruction


def picture_of(world: World, seed: int) -> np.ndarray:
    """(1, 128, 128, 3) uint8."""
    return render(shown(world, seed)[0])[None]


@dataclass(frozen=True)
class Setting:
    """What both stages share. `latents` is the folder that keeps pictures of `world`, drawn by `workers` processes."""

    vae: AutoencoderKL
    tokenizer: CLIPTokenizer
    world: World
    shape: Shape
    latents: Path
    workers: int

    def pictures(self, name: str, draw: Callable[[int], np.ndarray], seeds: range) -> Tensor:
        """`cached` under a name of its own, on the VAE's device."""
        return cached(self.latents / name, self.vae, draw, seeds, self.workers).to(self.vae.device)


def train_text_to_image(folder: Path, setting: Setting, plan: Plan, scenes: int) -> Networks:
    """Trains on texts of `scenes` scenes until `plan.samples`; returns the moving average."""
    world, shape, tokenizer, device = setting.world, setting.shape, setting.tokenizer, setting.vae.device
    latents = setting.pictures("scenes", partial(picture_of, world), range(scenes))[:, 0]
    drawn = [shown(world, seed) for seed in range(scenes)]
    alphas = build_scheduler().alphas_cumprod.to(device)
    precision = autocast(device)

    def loss(networks: Networks, k: int) -> Tensor:
        rng = np.random.default_rng([_STREAM, k, 1])
        rows = rng.integers(scenes, size=plan.batch)
        texts = ["" if rng.random() < NULL_SHARE else text_of(rng, *drawn[i]) for i in rows]
        # A random length: with all tokens always, most of what a short caption's attention sees would be padding.
        ids = token_ids(tokenizer, texts, int(rng.integers(2, MAX_TOKENS + 1))).to(device)
        x0 = latents[torch.from_numpy(rows)].float()
        generator = torch.Generator().manual_seed(k)
        t = torch.randint(len(alphas), (plan.batch,), generator=generator).to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        noisy, velocity = noised(x0, x0, noise, alphas[t], shape.latent_scaling)
        with precision:
            predicted = networks.unet(noisy, t, networks.text_encoder(ids).last_hidden_state).sample
        return F.mse_loss(predicted.float(), velocity)

    torch.manual_seed(0)
    networks = Networks(build_text_encoder(tokenizer, shape.text_layers), build_unet(shape, LATENT_CHANNELS)).to(device)
    record_cross_attention(networks.unet)
    return train(folder, networks, loss, probe(setting), plan)


def text_of(rng: np.random.Generator, scene: Scene, instruction: str | None) -> str:
    return random_caption(rng, scene).text if instruction is None else instruction


def probe(setting: Setting) -> Probe:
    """Every noun of a caption of each of PROBED scenes that no training sees; no caption says where a thing is."""
    world, tokenizer = setting.world, setting.tokenizer
    seeds = range(TUNING_SEED, TUNING_SEED + PROBED)
    latents = setting.pictures("scenes", partial(picture_of, world), seeds)[:, 0]
    texts, questions = [], []
    for row, seed in enumerate(seeds):
        scene, _ = shown(world, seed)
        caption, pixels = random_caption(np.random.default_rng([_STREAM, seed, 2]), scene, 0), labels(scene)
        texts.append(caption.text)
        for noun in caption.nouns:
            columns = token_columns(tokenizer, caption.text, (noun.start, noun.end))
            group = {SKY: "sky", GROUND: "ground"}.get(noun.labels[0], "object")
            questions.append(Question(row, columns, cells(np.isin(pixels, noun.labels)), group))
    ids = token_ids(tokenizer, texts, MAX_TOKENS).to(latents.device)
    return Probe(latents.float(), None, ids, questions, setting.shape.latent_scaling)
