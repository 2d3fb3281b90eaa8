"""Trains a demo model and writes its bundle: `python -m demo.train [recipe]`.

supervised (the default): VAE, then an InstructPix2Pix whose attention is drawn to the true regions. Writes demo/model.
two-stage: on demo/model's VAE, a text-to-image model on captions, then an InstructPix2Pix on single instructions whose
targets leak, as the real one was made; no loss looks at attention. Writes out/two-stage/model.

Both go on after an interruption: run the same command again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from demo import bundle, data, train_unet, train_vae
from demo.captions import vocabulary
from demo.instructions import train_instructions
from demo.latents import fingerprint
from demo.loop import Plan
from demo.models import Shape, build_tokenizer
from demo.scenes import WORLDS
from demo.text_to_image import Setting, train_text_to_image
from foi_core.spec import ModelDefaults

ROOT = Path(__file__).parent
OUT = ROOT.parent / "out"
BUNDLE = ROOT / "model"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = Shape(widths=(64, 128), cross_attention=(True, False), text_layers=1, latent_scaling=1.0)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    recipes = parser.add_subparsers(dest="recipe", title="recipe")
    _supervised_options(recipes.add_parser("supervised"))
    _two_stage_options(recipes.add_parser("two-stage"))
    asks_help = arguments[:1] in (["-h"], ["--help"])
    if not asks_help and (not arguments or arguments[0].startswith("-")):
        arguments = ["supervised", *arguments]
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.work.mkdir(parents=True, exist_ok=True)
    args.run(args)
    print(f"bundle written: {args.bundle}, {bundle.megabytes(args.bundle):.1f} MB", flush=True)


def _supervised_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=supervised)
    parser.add_argument("--vae-minutes", type=float, default=8, help="wall time for the VAE in all (default 8)")
    parser.add_argument(
        "--shards", type=int, default=20, help="of 500 scenes x 5 samples; the last is held out (default 20)"
    )
    parser.add_argument("--hours", type=float, default=2, help="wall time for the UNet in all legs (default 2)")
    parser.add_argument("--cooldown", type=float, default=0.25, help="hours of falling rate at the end (default 0.25)")
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
    _common_options(parser, OUT / "train", BUNDLE)


def _two_stage_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=two_stage)
    parser.add_argument("--world", choices=WORLDS, default="small", help="what scenes are made of (default small)")
    parser.add_argument(
        "--caption-samples", type=int, default=300_000, help="samples of the text-to-image model (default 300000)"
    )
    parser.add_argument(
        "--instruction-samples", type=int, default=300_000, help="samples of the InstructPix2Pix (default 300000)"
    )
    parser.add_argument("--scenes", type=int, default=20_000, help="scenes, and pairs, to draw (default 20000)")
    parser.add_argument(
        "--leak", type=float, default=0.6, help="how much targets do that no instruction says; 0: none (default 0.6)"
    )
    _common_options(parser, OUT / "two-stage", OUT / "two-stage" / "model")


def _common_options(parser: argparse.ArgumentParser, work: Path, bundle: Path) -> None:
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all)")
    parser.add_argument("--work", type=Path, default=work, help="folder of checkpoints and latents")
    parser.add_argument("--bundle", type=Path, default=bundle, help="where the weights go")
    parser.add_argument("--device", type=torch.device, default=DEVICE)


def supervised(args: argparse.Namespace) -> None:
    """Stages: pictures -> VAE -> latents -> text encoder and UNet -> bundle."""
    if args.from_bundle:
        vae = bundle.load_vae(BUNDLE).to(args.device)
    else:
        vae = train_vae.train(args.work, args.vae_minutes, args.device, args.threads)
        train_vae.refine_decoder(args.work, vae, args.decoder_minutes, args.device, args.threads)
    shards = data.make_shards(args.work / f"data-{fingerprint(vae)}", vae, args.shards, args.threads, args.device)
    start_from = BUNDLE if args.from_bundle else None
    checkpoint = train_unet.train(
        args.work, shards, args.hours, args.cooldown, args.device, start_from, args.attention_weight
    )
    bundle.write_checkpoint(args.bundle, vae, checkpoint)


def two_stage(args: argparse.Namespace) -> None:
    """Stages: latents -> text-to-image model -> latents of pairs -> InstructPix2Pix -> bundle."""
    vae, tokenizer = bundle.load_vae(BUNDLE).to(args.device), build_tokenizer(vocabulary())
    work = args.work / args.world
    setting = Setting(vae, tokenizer, WORLDS[args.world], SHAPE, work, args.threads)
    first, second = Plan(args.caption_samples), Plan(args.instruction_samples)
    networks = train_text_to_image(work / "text-to-image", setting, first, args.scenes)
    folder = work / f"instructions-{args.caption_samples}-{args.leak}"  # what it starts from, and what it learns
    networks = train_instructions(folder, setting, networks, second, args.leak, args.scenes)
    vae.register_to_config(scaling_factor=SHAPE.latent_scaling)
    bundle.write(args.bundle, vae, tokenizer, networks, ModelDefaults(num_inference_steps=50), folder / "log.jsonl")


if __name__ == "__main__":
    main(sys.argv[1:])
