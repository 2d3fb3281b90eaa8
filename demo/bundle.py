"""The bundle: the trained networks in diffusers' InstructPix2Pix layout, fp16 safetensors.

`python -m demo.bundle` writes it from the last checkpoint while training goes on.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionInstructPix2PixPipeline

from demo.edits import vocabulary
from demo.models import build_scheduler, build_tokenizer, build_vae
from demo.train_unet import DemoNetworks


def write(folder: Path, vae: AutoencoderKL, checkpoint: Path) -> None:
    """Writes the moving average of `checkpoint` and the VAE as one pipeline folder."""
    tokenizer = build_tokenizer(vocabulary())
    networks = DemoNetworks(tokenizer)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    networks.load_state_dict(state["average"])
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


def load_vae(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()


def megabytes(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.rglob("*.safetensors")) / 1e6


def main() -> None:
    root = Path(__file__).parent
    work = root.parent / "out" / "train"
    vae = build_vae()
    vae.load_state_dict(torch.load(work / "vae.pt", weights_only=True)["vae"])
    write(root / "model", vae.eval(), work / "unet.pt")
    print(f"bundle written: {megabytes(root / 'model'):.1f} MB")


if __name__ == "__main__":
    main()
