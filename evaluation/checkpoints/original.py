"""An original checkpoint (CompVis' `ldm` names, one file) as a folder in diffusers' layout.

The names are translated by diffusers' own converters. Works for InstructPix2Pix (`instruct-pix2pix-00-22000.ckpt`),
InstructDiffusion (`v1-5-pruned-emaonly-adaption-task.ckpt`, what its scripts/convert_ckpt.py writes) and HIVE
(`hive_rw.ckpt`, `hive_rw_condition.ckpt`, `hive_v2_rw_condition.ckpt`). HIVE's reward is no weight of its own: its
"condition" checkpoints read it in the text, as the ending ", image quality is five out of five" (edit_cli_rw_label.py).
InstructDiffusion samples with a guidance of its own (edit_cli.py: 1/2 (e_I0 + e_0T) + s_T (e_IT - e_I0)
+ s_I (e_IT - e_0T), at s_T = 5 and s_I = 1.25); here it runs with InstructPix2Pix's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from evaluation.checkpoints.architectures import ARCHITECTURES, SCHEDULER, Architecture
from evaluation.checkpoints.weights import CheckpointError

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
FIRST_CONVOLUTION = UNET + "input_blocks.0.0.weight"


def convert_original(
    weights: dict[str, Tensor], architecture: Architecture, tokenizer: Path, side: int, out: Path
) -> None:
    """Writes `out` from an original checkpoint's `weights`, each tensor in the precision that it has.

    `tokenizer` is a folder with CLIP's tokenizer, which no original checkpoint holds; `side` is the native side in
    pixels that the engine shall work at. Raises CheckpointError where parts are missing or do not fit `architecture`.
    """
    _check_parts(weights)
    unet_config = {**architecture.unet, "sample_size": side // 2 ** (len(architecture.vae["block_out_channels"]) - 1)}
    loaded_tokenizer = load_tokenizer(tokenizer, architecture)
    with torch.device("meta"):  # shapes only: the checkpoint's own tensors become the parameters
        unet = UNet2DConditionModel(**unet_config)
        vae = AutoencoderKL(**architecture.vae, sample_size=side)
        text_encoder = CLIPTextModel(_text_config(architecture, loaded_tokenizer, weights))
    _fill(unet, convert_ldm_unet_checkpoint(_averaged(weights), unet_config), "UNet", architecture)
    _fill(vae, convert_ldm_vae_checkpoint(weights, architecture.vae), "VAE", architecture)
    _fill(text_encoder, _text_weights(weights, text_encoder), "text encoder", architecture)
    scheduler = EulerAncestralDiscreteScheduler(**SCHEDULER)
    StableDiffusionInstructPix2PixPipeline(
        vae, text_encoder, loaded_tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(out, safe_serialization=True)


def find_architecture(weights: dict[str, Tensor]) -> Architecture:
    """SD 2.x's checkpoints hold OpenCLIP's text encoder, SD 1.x's CLIP's. Raises CheckpointError for neither."""
    if any(name.startswith(OPEN_CLIP) for name in weights):
        return ARCHITECTURES["sd2"]
    if any(name.startswith(CLIP) for name in weights):
        return ARCHITECTURES["sd1"]
    raise CheckpointError(
        f"no text encoder ({CLIP}* or {OPEN_CLIP}*) in the checkpoint, so its base is unknown: use the full "
        "checkpoint, not one that holds only the UNet"
    )


def load_tokenizer(folder: Path, architecture: Architecture) -> CLIPTokenizer:
    """CLIP's tokenizer from a folder, or from the "tokenizer" inside a diffusers folder; pads as `architecture`
    does."""
    inner = folder / "tokenizer"
    place = inner if inner.is_dir() else folder
    if not any((place / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointError(f"{place} holds no tokenizer (tokenizer.json, or vocab.json and merges.txt)")
    tokenizer = CLIPTokenizer.from_pretrained(place, local_files_only=True)
    tokenizer.pad_token = architecture.pad
    return tokenizer


def _check_parts(weights: dict[str, Tensor]) -> None:
    for prefix, part in ((UNET, "UNet"), (VAE, "VAE")):
        if not any(name.startswith(prefix) for name in weights):
            raise CheckpointError(f"the checkpoint has no {part} ({prefix}*): use the full checkpoint")
    first = weights.get(FIRST_CONVOLUTION)
    if first is None or first.ndim != 4 or first.shape[1] != 8:
        channels = "no" if first is None or first.ndim != 4 else first.shape[1]
        raise CheckpointError(
            f"the checkpoint's UNet takes {channels} channels, not 8 (noisy latent and image latent): it is no "
            "InstructPix2Pix model, and cannot edit"
        )


def _averaged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's weights, each replaced by its moving average where the checkpoint keeps one.

    The originals sample with the averages too (`model.ema_scope()` in their edit_cli.py). `ldm` names them without
    dots: model.diffusion_model.out.0.weight is model_ema.diffusion_modelout0weight.
    """
    found = {}
    for name, tensor in weights.items():
        if name.startswith(UNET):
            found[name] = weights.get("model_ema." + name.removeprefix("model.").replace(".", ""), tensor)
    return found


def _text_config(architecture: Architecture, tokenizer: CLIPTokenizer, weights: dict[str, Tensor]) -> CLIPTextConfig:
    """Vocabulary and length are the checkpoint's own; special tokens are the tokenizer's, which must fit."""
    tables = [CLIP + "text_model.embeddings.{}_embedding.weight", CLIP + "embeddings.{}_embedding.weight"]
    names = [*(t.format("token") for t in tables), OPEN_CLIP + "token_embedding.weight"]
    lengths = [*(t.format("position") for t in tables), OPEN_CLIP + "positional_embedding"]
    rows = [next((len(weights[n]) for n in options if n in weights), 0) for options in (names, lengths)]
    if not all(rows):
        raise CheckpointError(f"the checkpoint has no whole text encoder ({CLIP}* or {OPEN_CLIP}*)")
    if rows[0] != len(tokenizer):
        raise CheckpointError(f"the tokenizer has {len(tokenizer)} tokens, the checkpoint's text encoder {rows[0]}")
    return CLIPTextConfig(
        **architecture.text,
        vocab_size=rows[0],
        max_position_embeddings=rows[1],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _text_weights(weights: dict[str, Tensor], text_encoder: CLIPTextModel) -> dict[str, Tensor]:
    """CLIP's or OpenCLIP's names -> transformers', without the layers that are not used."""
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(".position_ids")}
    if any(name.startswith(OPEN_CLIP) for name in kept):
        unused = f"{OPEN_CLIP}transformer.resblocks.{text_encoder.config.num_hidden_layers}."
        outputs = (OPEN_CLIP + "text_projection", OPEN_CLIP + "logit_scale")
        kept = {name: tensor for name, tensor in kept.items() if not name.startswith((unused, *outputs))}
        converted = convert_open_clip_checkpoint(text_encoder, kept, prefix=OPEN_CLIP)
    else:
        converted = convert_ldm_clip_checkpoint(kept)
    # The prefix is transformers' own, by version.
    wrapped = "text_model." if hasattr(text_encoder, "text_model") else ""
    return {wrapped + name.removeprefix("text_model."): tensor for name, tensor in converted.items()}


def _fill(module: nn.Module, weights: dict[str, Tensor], part: str, architecture: Architecture) -> None:
    """Makes `weights` the parameters of a module without storage."""
    try:
        module.load_state_dict({k: v.contiguous() for k, v in weights.items()}, strict=True, assign=True)
    except RuntimeError as error:
        first = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise CheckpointError(
            f"the checkpoint's {part} does not fit {architecture.name} (another base may): {first[:300]}"
        ) from error
