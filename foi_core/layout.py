"""diffusers' layout of a checkpoint: which of its files are loaded, and whether it is one that can edit. Torch-free.

Everything here is known from names and small files, before weights are downloaded or read.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foi_core.errors import UnsupportedCheckpoint

NETWORKS = ("unet", "vae", "text_encoder")
SAFETY_CHECKER = "safety_checker"
PARTS = (*NETWORKS, "scheduler", "tokenizer")
SMALL_FILES = [
    "model_index.json",
    "foi.json",
    *(f"{part}/config.json" for part in (*NETWORKS, SAFETY_CHECKER)),
    *(f"{part}/*.json" for part in ("scheduler", "tokenizer", "feature_extractor")),
    "tokenizer/*.txt",
]
"""Patterns of what tells whether a checkpoint can be used, without its weights."""
EXPECTED = f"expected diffusers' layout: model_index.json and the folders {', '.join(PARTS)}"
BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}
"""What the UNets of Stable Diffusion 1.x and 2.x are made of."""
OTHER_CHANNELS = {
    4: "a plain text-to-image checkpoint cannot edit",
    9: "an inpainting checkpoint takes a mask, not an instruction",
}


@dataclass(frozen=True)
class Weights:
    """One network's weights: `file` relative to the checkpoint. `variant` fp16: they are stored in half precision."""

    part: str
    file: str
    variant: str | None
    safe: bool


def choose_weights(
    model: str, part: str, names: Collection[str], *, half: bool = False, allow_pickle: bool = False
) -> Weights:
    """The file that `part` is loaded from: safetensors before pickles, and the fp16 variant first where the model runs
    in float16, else last. Raises UnsupportedCheckpoint."""
    ours = part in NETWORKS[:2]
    safe, pickled = ("diffusion_pytorch_model",) * 2 if ours else ("model", "pytorch_model")
    variants = ("fp16", None) if half else (None, "fp16")
    options = [Weights(part, _named(part, safe, v, "safetensors"), v, True) for v in variants]
    pickles = [Weights(part, _named(part, pickled, v, "bin"), v, False) for v in variants]
    allowed = [*options, *pickles] if allow_pickle else options
    found = next((one for one in allowed if one.file in names), None)
    if found is not None:
        return found
    if any(one.file in names for one in pickles):
        raise UnsupportedCheckpoint(
            f"{model!r} has the weights of its {part} only as a pickle (.bin), which can run code when it is loaded: "
            "convert a folder with `python -m evaluation.checkpoints FOLDER OUT_FOLDER`, or, if you trust its source, "
            "set FOI_ALLOW_PICKLE=true"
        )
    without = ", or set FOI_SAFETY_CHECKER=off" if part == SAFETY_CHECKER else ""
    there = ", ".join(sorted(name for name in names if name.startswith(f"{part}/"))) or "nothing"
    raise UnsupportedCheckpoint(f"{model!r} lacks {part}/{safe}.safetensors; there is {there}. Get it whole{without}")


def _named(part: str, stem: str, variant: str | None, kind: str) -> str:
    return f"{part}/{stem}.{variant}.{kind}" if variant else f"{part}/{stem}.{kind}"


def has_safety_checker(folder: Path) -> bool:
    """Whether the checkpoint says that it comes with one."""
    named = _read(folder / "model_index.json").get(SAFETY_CHECKER)
    return isinstance(named, list) and bool(named) and named[-1] is not None


def check(model: str, folder: Path, names: Collection[str]) -> None:
    """Raises UnsupportedCheckpoint where the small files tell that it is no whole InstructPix2Pix of Stable Diffusion
    1.x or 2.x."""
    if "model_index.json" not in names:
        raise UnsupportedCheckpoint(f"{model!r} has no model_index.json{_instead(names)}; {EXPECTED}")
    index = _read(folder / "model_index.json")
    if "text_encoder_2" in index or "XL" in str(index.get("_class_name")):
        raise UnsupportedCheckpoint(f"{model!r} has more than one text encoder (SDXL), which is not supported yet")
    for part in PARTS:
        if not any(name.startswith(f"{part}/") for name in names):
            raise UnsupportedCheckpoint(f"{model!r} has no {part}; {EXPECTED}")
    if "tokenizer/tokenizer.json" not in names and not {"tokenizer/vocab.json", "tokenizer/merges.txt"} <= {*names}:
        raise UnsupportedCheckpoint(f"{model!r} has no vocabulary: tokenizer.json, or vocab.json and merges.txt")
    unet, vae, text = (_read(folder / part / "config.json") for part in NETWORKS)
    _check_classes(model, unet, vae, text)
    _check_channels(model, unet, vae)
    if unet.get("addition_embed_type") is not None or unet.get("cross_attention_dim") != text.get("hidden_size"):
        raise UnsupportedCheckpoint(
            f"{model!r}: its UNet reads texts of width {unet.get('cross_attention_dim')}, its text encoder gives "
            f"{text.get('hidden_size')}: more than one text encoder (SDXL) is not supported yet"
        )
    if _read(folder / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon") not in (
        "epsilon",
        "v_prediction",
    ):
        raise UnsupportedCheckpoint(f"{model!r} predicts neither noise nor velocity; its scheduler is not supported")


def _check_classes(model: str, unet: dict[str, Any], vae: dict[str, Any], text: dict[str, Any]) -> None:
    blocks = {*_strings(unet.get("down_block_types")), *_strings(unet.get("up_block_types"))}
    kinds = (
        (unet.get("_class_name"), "UNet2DConditionModel", "unet"),
        (vae.get("_class_name"), "AutoencoderKL", "vae"),
        (text.get("model_type"), "clip_text_model", "text_encoder"),
    )
    unknown = [f"{part} is {found}" for found, known, part in kinds if found != known]
    unknown += [f"unet has {block}" for block in sorted(blocks - BLOCKS)]
    if unknown:
        raise UnsupportedCheckpoint(f"{model!r} is no Stable Diffusion 1.x or 2.x: {', '.join(unknown)}")


def _check_channels(model: str, unet: dict[str, Any], vae: dict[str, Any]) -> None:
    latent, taken, given = vae.get("latent_channels", 4), unet.get("in_channels", 4), unet.get("out_channels", 4)
    if taken != 2 * latent or given != latent:
        raise UnsupportedCheckpoint(
            f"{model!r} is not an InstructPix2Pix model: its UNet takes {taken} channels, not {2 * latent} "
            f"(noisy latent and image latent), and gives {given}: {OTHER_CHANNELS.get(taken, 'no such model can edit')}"
        )


def _instead(names: Collection[str]) -> str:
    """What to do with the originals that lie there."""
    originals = sorted(name for name in names if "/" not in name and name.endswith((".ckpt", ".safetensors")))
    if not originals:
        return ""
    command = "`python -m evaluation.checkpoints FILE OUT_FOLDER --tokenizer DIR`"
    return f", but the original checkpoint {originals[0]}: convert it with {command}"


def _strings(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedCheckpoint(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UnsupportedCheckpoint(f"{path} is no JSON object")
    return content
