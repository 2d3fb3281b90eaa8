"""Trains the demo model from nothing and writes its bundle: `python -m demo.train`.

Stages: pictures -> VAE -> latents -> text encoder and UNet -> bundle. Every stage resumes after an interruption: run
the same command again. Work files go to out/train, the bundle to demo/model.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from demo import bundle, data, train_unet, train_vae

ROOT = Path(__file__).parent
WORK = ROOT.parent / "out" / "train"
BUNDLE = ROOT / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae-minutes", type=float, default=8, help="wall time for the VAE in all (default 8)")
    parser.add_argument(
        "--shards", type=int, default=20, help="of 500 scenes x 5 samples; the last is held out (default 20)"
    )
    parser.add_argument("--hours", type=float, default=2, help="wall time for the UNet in all legs (default 2)")
    parser.add_argument("--cooldown", type=float, default=0.25, help="hours of falling rate at the end (default 0.25)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all)")
    parser.add_argument("--from-bundle", action="store_true", help="go on from demo/model, its VAE included")
    parser.add_argument(
        "--decoder-minutes", type=float, default=22, help="wall time for the VAE's decoder alone (default 22)"
    )
    parser.add_argument(
        "--attention-weight",
        type=float,
        default=train_unet.ATTENTION_WEIGHT,
        help="of the loss that draws a keyword's attention to its region; 0 for the ablation (default %(default)s)",
    )
    parser.add_argument("--work", type=Path, default=WORK, help="folder of checkpoints and latents (default out/train)")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="where the weights go (default demo/model)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.from_bundle:
        vae = bundle.load_vae(BUNDLE).to(device)
    else:
        vae = train_vae.train(args.work, args.vae_minutes, device, args.threads)
        train_vae.refine_decoder(args.work, vae, args.decoder_minutes, device, args.threads)
    shards = data.make_shards(args.work / f"data-{_fingerprint(vae)}", vae, args.shards, args.threads, device)
    start_from = BUNDLE if args.from_bundle else None
    checkpoint = train_unet.train(
        args.work, shards, args.hours, args.cooldown, device, start_from, args.attention_weight
    )
    bundle.write(args.bundle, vae, checkpoint)
    print(f"bundle written: {args.bundle}, {bundle.megabytes(args.bundle):.1f} MB", flush=True)


def _fingerprint(vae: AutoencoderKL) -> str:
    """Latents belong to the encoder that made them."""
    encoder = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]
    weights = torch.cat([p.detach().flatten() for p in encoder]).half().cpu()
    return hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:12]


if __name__ == "__main__":
    main()
