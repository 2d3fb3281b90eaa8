"""Stage 3 of `python -m demo.train`: text encoder and 8-channel UNet, from nothing, on cached latents.

Departures from IP2P's recipe, each named here and in the model card:
- `v_prediction` instead of `epsilon` (the same model up to a linear map, but learnable in minutes at high noise);
- `ATTENTION_WEIGHT`: the keyword's cross-attention is drawn to the true region;
- `SINK_WEIGHT`: the null instruction's cross-attention is drawn to the start token, as Stable Diffusion's is by itself;
- a dropped instruction is trained to change nothing, rather than to make an unknown edit;
- `BLEND_SHARE`: the noisy latent may start from the source, as an edit at strength 0.8 does.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from demo.data import EDITS_PER_SCENE, load_shards
from demo.edits import vocabulary
from demo.models import (
    LATENT_SCALING,
    MAX_TOKENS,
    Networks,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
)
from demo.train_vae import write_state
from foi_core import masks
from foi_core.model import autocast

BATCH = 16
LEARNING_RATE = 1e-3
WARMUP = 300  # optimiser steps
EMA_HALFLIFE = 12_000  # samples
REGION_WEIGHT = 4.0
ATTENTION_WEIGHT = 0.2
SINK_WEIGHT = 0.05
DROP_TEXT, DROP_BOTH = 0.07, 0.04
BLEND_SHARE = 0.5
REPORT_EVERY = 60.0  # seconds


def demo_networks(tokenizer: CLIPTokenizer) -> Networks:
    return Networks(build_text_encoder(tokenizer), build_unet())


class RecordingProcessor(AttnProcessor):  # type: ignore[misc]  # diffusers is untyped to mypy
    """diffusers' plain attention, which also keeps its probabilities with their graph: (B * heads, queries, tokens)."""

    def __init__(self) -> None:
        super().__init__()
        self.probabilities: Tensor | None = None

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: object) -> Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        self.probabilities = attn.get_attention_scores(query, key, None)
        out = attn.batch_to_head_dim(torch.bmm(self.probabilities, value))
        return attn.to_out[0](out)  # type: ignore[no-any-return]


@dataclass
class Progress:
    """Loop state that a checkpoint keeps."""

    samples: int = 0
    seconds: float = 0.0


class Dataset:
    """All cached latents in memory, and their token ids and keyword columns."""

    def __init__(self, paths: list[Path], tokenizer: CLIPTokenizer, device: torch.device) -> None:
        tensors, texts, spans = load_shards(paths)
        self.source, self.target, self.regions = (tensors[k].to(device) for k in ("source", "target", "regions"))
        encoded = tokenizer(
            texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_offsets_mapping=True
        )
        self.ids = torch.tensor(encoded["input_ids"], device=device)
        # (n, parts, tokens): 1 / number of keyword tokens at the keyword's columns
        columns = torch.zeros(len(texts), self.regions.shape[1], MAX_TOKENS)
        for i, offsets in enumerate(encoded["offset_mapping"]):
            for part, (start, end) in enumerate(spans[i]):
                hits = [j for j, (a, b) in enumerate(offsets) if a < end and b > start]
                columns[i, part, hits] = 1 / max(len(hits), 1)
        self.columns = columns.to(device)
        self.null_ids = torch.tensor(
            tokenizer("", padding="max_length", max_length=MAX_TOKENS).input_ids, device=device
        )

    def __len__(self) -> int:
        return len(self.source)


def train(
    folder: Path,
    shards: list[Path],
    hours: float,
    cooldown: float,
    device: torch.device,
    start_from: Path | None,
    attention_weight: float = ATTENTION_WEIGHT,
) -> Path:
    """Trains until `hours` of wall time are spent in all legs; the last `cooldown` hours bring the rate to zero.

    Resumes from `folder/unet.pt`; without one, from the bundle `start_from` if it is given. Returns the checkpoint's
    path.
    """
    tokenizer = build_tokenizer(vocabulary())
    networks, average = demo_networks(tokenizer).to(device), demo_networks(tokenizer).to(device)
    if start_from is not None:
        load_bundle_weights(networks, start_from)
    average.load_state_dict(networks.state_dict())
    optimiser = torch.optim.AdamW(networks.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    progress = Progress()
    checkpoint = folder / "unet.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if (trained_with := state.get("attention_weight", ATTENTION_WEIGHT)) != attention_weight:
            raise SystemExit(f"{checkpoint} was trained with attention weight {trained_with}: give another --work")
        networks.load_state_dict(state["networks"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        progress = Progress(**state["progress"])

    recorders = record_cross_attention(networks.unet)
    data, held_out = Dataset(shards[:-1], tokenizer, device), Dataset(shards[-1:], tokenizer, device)
    alphas = build_scheduler().alphas_cumprod.to(device)
    generator = torch.Generator(device).manual_seed(progress.samples)
    decay = 0.5 ** (BATCH / EMA_HALFLIFE)
    begun, reported, steps, losses = time.monotonic() - progress.seconds, time.monotonic(), 0, []
    while (left := 3600 * hours - (time.monotonic() - begun)) > 0:
        rate = LEARNING_RATE * min(1, (steps + 1) / WARMUP) * min(1, left / (3600 * cooldown + 1))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(data), (BATCH,), generator=generator, device=device)
        loss, parts = training_loss(networks, recorders, data, rows, alphas, generator, attention_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            warm_decay = min(decay, (steps + 1) / (steps + 50)) if progress.samples < EMA_HALFLIFE else decay
            torch._foreach_lerp_(list(average.parameters()), list(networks.parameters()), 1 - warm_decay)
        steps, progress.samples = steps + 1, progress.samples + BATCH
        losses.append(parts)
        if time.monotonic() - reported > REPORT_EVERY:
            reported = time.monotonic()
            progress.seconds = time.monotonic() - begun
            report(folder, average, held_out, alphas, progress, losses)
            losses = []
            save(checkpoint, networks, average, optimiser, progress, attention_weight)
    progress.seconds = time.monotonic() - begun
    save(checkpoint, networks, average, optimiser, progress, attention_weight)
    return checkpoint


def record_cross_attention(unet: UNet2DConditionModel) -> list[RecordingProcessor]:
    """Plain attention everywhere (the fastest on a CPU), recording in the cross-attention layers."""
    processors = {name: RecordingProcessor() if "attn2" in name else AttnProcessor() for name in unet.attn_processors}
    unet.set_attn_processor(dict(processors))  # which empties what it is given
    return [p for p in processors.values() if isinstance(p, RecordingProcessor)]


def training_loss(
    networks: Networks,
    recorders: list[RecordingProcessor],
    data: Dataset,
    rows: Tensor,
    alphas: Tensor,
    generator: torch.Generator,
    attention_weight: float = ATTENTION_WEIGHT,
) -> tuple[Tensor, tuple[float, float, float]]:
    """The batch's loss, and its parts (denoising, attention, sink) for the log."""
    device, n = rows.device, len(rows)
    source, target = data.source[rows].float(), data.target[rows].float()
    regions, columns, ids = data.regions[rows].float(), data.columns[rows], data.ids[rows]

    draw = torch.rand(n, generator=generator, device=device)
    no_text = draw < DROP_TEXT + DROP_BOTH
    no_image = draw < DROP_BOTH
    ids = torch.where(no_text[:, None], data.null_ids, ids)
    target = torch.where(no_text[:, None, None, None], source, target)
    condition = torch.where(no_image[:, None, None, None], torch.zeros_like(source), source)
    union = regions.amax(1) * ~no_text[:, None, None]

    t = _timesteps(n, generator, device)
    noise = torch.randn(source.shape, generator=generator, device=device)
    blend = (
        torch.rand(n, generator=generator, device=device)
        * (t > 500)
        * (torch.rand(n, generator=generator, device=device) < BLEND_SHARE)
    )
    noisy, velocity = noised(target, target.lerp(source, blend[:, None, None, None]), noise, alphas[t])
    with autocast(device):
        text = networks.text_encoder(ids).last_hidden_state
        predicted = networks.unet(torch.cat([noisy, condition], 1), t, text).sample
    weight = 1 + REGION_WEIGHT * union[:, None]
    denoising = (weight * (predicted.float() - velocity).pow(2)).mean()
    attention, sink = attention_losses(recorders, regions, columns, no_text)
    total = denoising + attention_weight * attention + SINK_WEIGHT * sink
    return total, (denoising.item(), attention.item(), sink.item())


def noised(
    x0: Tensor, carrier: Tensor, noise: Tensor, alpha_bar: Tensor, scaling: float = LATENT_SCALING
) -> tuple[Tensor, Tensor]:
    """Noisy latent made from `carrier`, and the velocity that leads from it to `x0` (unscaled latents in, scaled
    out)."""
    a, s = alpha_bar.sqrt()[:, None, None, None], (1 - alpha_bar).sqrt()[:, None, None, None]
    x0, carrier = x0 * scaling, carrier * scaling
    noisy = a * carrier + s * noise
    effective = (noisy - a * x0) / s
    return noisy, a * effective - s * x0


def attention_losses(
    recorders: list[RecordingProcessor], regions: Tensor, columns: Tensor, no_text: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each keyword's spatial attention with its true region, and of null rows with the start token."""
    n = len(regions)
    attention, sink = regions.new_zeros(()), regions.new_zeros(())
    areas = regions.sum((2, 3))
    valid = (areas > 0.5) & ~no_text[:, None]  # (B, parts)
    for recorder in recorders:
        assert recorder.probabilities is not None
        maps = recorder.probabilities.float().unflatten(0, (n, -1)).mean(1)  # (B, queries, tokens)
        side = math.isqrt(maps.shape[1])
        keyword = torch.einsum("bqt,bpt->bpq", maps, columns)
        log_share = (keyword + 1e-8).log() - (keyword.sum(-1, keepdim=True) + 1e-8).log()
        wanted = F.adaptive_avg_pool2d(regions, side).flatten(2)
        wanted = wanted / wanted.sum(-1, keepdim=True).clamp_min(1e-6)
        cross_entropy = -(wanted * log_share).sum(-1)
        attention = attention + (cross_entropy * valid).sum() / valid.sum().clamp_min(1)
        if no_text.any():
            sink = sink - (maps[no_text, :, 0] + 1e-6).log().mean()
    return attention / len(recorders), sink / len(recorders)


def _timesteps(n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """80% where an edit at strength 0.8 does its work, 20% anywhere."""
    busy = torch.rand(n, generator=generator, device=device) < 0.8
    low = torch.where(busy, 200, 0)
    high = torch.where(busy, 850, 1000)
    return (low + torch.rand(n, generator=generator, device=device) * (high - low)).long()


@torch.no_grad()
def held_out_figures(networks: Networks, data: Dataset, alphas: Tensor, count: int = 100) -> dict[str, float]:
    """At t = 800 from the noised source, on scenes not trained on: error inside the region relative to copying, and the
    median IoU of the keyword's mask (Eq. 2 with gamma 3 and tau 0.5, averaged over the 16x16 layers)."""
    singles = (i for i in range(len(data)) if (i + 1) % EDITS_PER_SCENE and data.regions[i, 0].sum() > 0.5)
    rows = torch.tensor(list(islice(singles, count)), device=data.source.device)
    recorders = record_cross_attention(networks.unet)
    source, target = data.source[rows].float(), data.target[rows].float()
    noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(0)).to(source.device)
    t = torch.full((len(rows),), 800, device=source.device)
    noisy, _ = noised(target, source, noise, alphas[t])
    velocity = networks.unet(
        torch.cat([noisy, source], 1), t, networks.text_encoder(data.ids[rows]).last_hidden_state
    ).sample
    a, s = alphas[800].sqrt(), (1 - alphas[800]).sqrt()
    predicted = (a * noisy - s * velocity) / LATENT_SCALING
    region = data.regions[rows, :1].float()
    error = (region * (predicted - target).pow(2)).sum() / (region * (source - target).pow(2)).sum()
    side = source.shape[-1]  # this model's map level is its latent's own resolution
    maps = [r.probabilities.unflatten(0, (len(rows), -1)).mean(1) for r in recorders if r.probabilities is not None]
    seen = torch.stack([m for m in maps if m.shape[1] == side * side]).mean(0).float()
    keyword = torch.einsum("bqt,bt->bq", seen, data.columns[rows, 0]).unflatten(1, (side, side))
    found = torch.stack([masks.binarise(masks.enhance(masks.smooth(one)), 0.5) for one in keyword]) > 0
    truth = region[:, 0] > 0.5
    iou = (found & truth).sum((1, 2)) / (found | truth).sum((1, 2)).clamp_min(1)
    return {"error_inside": error.item(), "mask_iou": iou.median().item()}


def report(
    folder: Path,
    average: Networks,
    held_out: Dataset,
    alphas: Tensor,
    progress: Progress,
    losses: list[tuple[float, float, float]],
) -> None:
    means = [sum(column) / len(losses) for column in zip(*losses, strict=True)]
    figures = held_out_figures(average, held_out, alphas)
    line = {
        "samples": progress.samples,
        "hours": round(progress.seconds / 3600, 3),
        **dict(zip(("denoising", "attention", "sink"), (round(m, 4) for m in means), strict=True)),
        **{k: round(v, 4) for k, v in figures.items()},
    }
    print(json.dumps(line), flush=True)
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


def save(
    path: Path,
    networks: Networks,
    average: Networks,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    attention_weight: float,
) -> None:
    state = {
        "networks": networks.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progress": vars(progress),
        "attention_weight": attention_weight,
    }
    write_state(path, state)


def load_bundle_weights(networks: Networks, bundle: Path) -> None:
    """Starts from a committed bundle, so that training goes on across machines."""
    networks.unet.load_state_dict(UNet2DConditionModel.from_pretrained(bundle / "unet").state_dict())
    networks.text_encoder.load_state_dict(CLIPTextModel.from_pretrained(bundle / "text_encoder").state_dict())
