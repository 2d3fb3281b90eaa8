"""The bundle: the trained networks in diffusers' InstructPix2Pix layout, fp16 safetensors.

`python -m demo.bundle` writes it from the last checkpoint while training goes on.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionInstructPix2PixPipeline
from transformers import CLIPTokenizer

from demo.edits import vocabulary
from demo.models import Networks, build_scheduler, build_tokenizer, build_vae
from demo.train_unet import demo_networks
from foi_core.model import DEFAULTS_FILE
from foi_core.spec import ModelDefaults

DEFAULTS = ModelDefaults(num_inference_steps=50, guidance_scale=1.5, image_guidance_scale=1.5)
"""What suits this small model; chosen on tuning scenes (see its card)."""


def write_checkpoint(folder: Path, vae: AutoencoderKL, checkpoint: Path) -> None:
    """Writes the moving average of the supervised recipe's `checkpoint`."""
    tokenizer = build_tokenizer(vocabulary())
    networks = demo_networks(tokenizer)
    networks.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["average"])
    write(folder, vae, tokenizer, networks, DEFAULTS, checkpoint.parent / "log.jsonl")


def write(
    folder: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer, networks: Networks, defaults: ModelDefaults, log: Path
) -> None:
    """Writes the networks as one folder, with the defaults that suit them and the training's log, if there is one."""
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=networks.text_encoder,
        tokenizer=tokenizer,
        unet=networks.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / DEFAULTS_FILE).write_text(json.dumps(asdict(defaults), indent=2) + "\n")
    if log.exists():
        shutil.copy(log, folder / log.name)


def load_vae(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32, low_cpu_mem_usage=False).eval()


def megabytes(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.rglob("*.safetensors")) / 1e6


def main() -> None:
    root = Path(__file__).parent
    work = root.parent / "out" / "train"
    if (work / "vae.pt").exists():
        vae = build_vae()
        vae.load_state_dict(torch.load(work / "vae.pt", map_location="cpu", weights_only=True)["vae"])
    else:
        vae = load_vae(root / "model")
    write_checkpoint(root / "model", vae.eval(), work / "unet.pt")
    print(f"bundle written: {megabytes(root / 'model'):.1f} MB")


if __name__ == "__main__":
    main()
