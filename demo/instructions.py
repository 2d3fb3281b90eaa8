"""Stage 2 of the two-stage recipe: InstructPix2Pix from a text-to-image model, as Brooks et al. (2023) made theirs.

Zero-initialised image channels, a frozen text encoder, single instructions, and pairs that leak (`demo.pairs`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from demo.data import TUNING_SEED
from demo.grounding import Probe, Question, cells
from demo.loop import Plan, train
from demo.models import (
    LATENT_CHANNELS,
    MAX_TOKENS,
    Networks,
    Shape,
    build_scheduler,
    build_unet,
    token_columns,
    token_ids,
)
from demo.pairs import pair_of, pictures_of
from demo.text_to_image import Setting
from demo.train_unet import noised, record_cross_attention
from foi_core.model import autocast

DROP_IMAGE, DROP_TEXT, DROP_BOTH = 0.05, 0.05, 0.05
PROBED = 200  # held-out pairs

_STREAM = 18


def train_instructions(
    folder: Path, setting: Setting, start: Networks, plan: Plan, leak: float, pairs: int
) -> Networks:
    """Goes on from the text-to-image model `start` with `pairs` pairs until `plan.samples`; returns the moving
    average."""
    world, shape, tokenizer, device = setting.world, setting.shape, setting.tokenizer, setting.vae.device
    latents = setting.pictures(f"pairs-{leak}", partial(pictures_of, world, leak), range(pairs))
    texts = [pair_of(world, seed).edit.instruction for seed in range(pairs)]
    alphas = build_scheduler().alphas_cumprod.to(device)
    precision = autocast(device)

    def loss(networks: Networks, k: int) -> Tensor:
        rng = np.random.default_rng([_STREAM, k])
        rows, draw = rng.integers(pairs, size=plan.batch), rng.random(plan.batch)
        no_text = draw < DROP_TEXT + DROP_BOTH
        no_image = (draw >= DROP_TEXT) & (draw < DROP_TEXT + DROP_BOTH + DROP_IMAGE)
        said = ["" if without else texts[i] for i, without in zip(rows, no_text, strict=True)]
        ids = token_ids(tokenizer, said, int(rng.integers(2, MAX_TOKENS + 1))).to(device)
        source, target = latents[torch.from_numpy(rows)].float().unbind(1)
        source = source * torch.from_numpy(~no_image).to(device)[:, None, None, None]
        generator = torch.Generator().manual_seed(k)
        t = torch.randint(len(alphas), (plan.batch,), generator=generator).to(device)
        noise = torch.randn(target.shape, generator=generator).to(device)
        noisy, velocity = noised(target, target, noise, alphas[t], shape.latent_scaling)
        with precision:
            text = networks.text_encoder(ids).last_hidden_state
            predicted = networks.unet(torch.cat([noisy, source], 1), t, text).sample
        return F.mse_loss(predicted.float(), velocity)

    networks = Networks(start.text_encoder, with_image_channels(start.unet, shape)).to(device)
    networks.text_encoder.requires_grad_(False)
    networks.unet.requires_grad_(True)
    record_cross_attention(networks.unet)
    return train(folder, networks, loss, probe(setting), plan)


def with_image_channels(unet: UNet2DConditionModel, shape: Shape) -> UNet2DConditionModel:
    """The same UNet with LATENT_CHANNELS more input channels, which it does not see yet: their weights are zero."""
    wider = build_unet(shape, 2 * LATENT_CHANNELS).to(unet.device)
    weights = unet.state_dict()
    narrow = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([narrow, torch.zeros_like(narrow)], 1)
    wider.load_state_dict(weights)
    return wider


def probe(setting: Setting) -> Probe:
    """The keyword of one instruction for each of PROBED pictures that no training sees, the picture as condition."""
    world, tokenizer = setting.world, setting.tokenizer
    seeds = range(TUNING_SEED, TUNING_SEED + PROBED)
    latents = setting.pictures("pairs-0", partial(pictures_of, world, 0), seeds)[:, 0].float()
    texts, questions = [], []
    for row, seed in enumerate(seeds):
        pair = pair_of(world, seed)
        texts.append(pair.edit.instruction)
        truth, edit = cells(pair.edit.region(pair.scene)), pair.edit
        group = {"thing": "object", "sky": "sky", "ground": "ground"}.get(edit.subject.split()[0])
        if truth.any() and group is not None and edit.kind != "hat":  # whose keyword names what is not there yet
            start = edit.instruction.index(edit.keyword)
            columns = token_columns(tokenizer, edit.instruction, (start, start + len(edit.keyword)))
            questions.append(Question(row, columns, truth, group))
    ids = token_ids(tokenizer, texts, MAX_TOKENS).to(latents.device)
    return Probe(latents, latents, ids, questions, setting.shape.latent_scaling)
