"""`python -m evaluation.checkpoints.check_real_shapes`: every kind of checkpoint at its real size, with random weights.

Shows that checkpoints of the real shapes (SD 1.5 and SD 2.1 with 8 input channels) are written, converted, loaded and
run, in each form that they were published in; says nothing of how they edit. The three SD 1.5 forms hold the same
weights and must give the same picture. Needs about 9 GB of memory and 6 GB of disk in the temporary folder, which is
cleaned up.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.utils import logging as transformers_logging

from demo.edits import vocabulary
from demo.models import build_tokenizer
from evaluation.checkpoints import original_names
from evaluation.checkpoints.__main__ import main as convert
from evaluation.checkpoints.architectures import SCHEDULER, SD1, SD2, Architecture
from evaluation.checkpoints.folder import NETWORKS
from foi_core import EditSpec, SubInstruction
from foi_core.engine import Engine

SIDE = 128  # pixels, native and of the picture: the shapes of the weights do not depend on it
VOCABULARY = 49408  # CLIP's

Make = Callable[[Path], Path]


def main() -> int:
    """Runs every form in turn; 0 if all edit, and the three forms of SD 1.5 alike."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        forms: list[tuple[str, Make]] = [
            ("SD 1.5, diffusers layout", _layout),
            ("SD 1.5, another label and .bin (as MagicBrush)", _mislabelled),
            ("SD 1.5, original .ckpt with averages (as InstructPix2Pix)", _original_v1),
            ("SD 2.1, original .ckpt (as HIVE)", _original_v2),
        ]
        pictures = [_try_form(name, make, root / str(i)) for i, (name, make) in enumerate(forms)]
    alike = pictures[0].tobytes() == pictures[1].tobytes() == pictures[2].tobytes()
    print("the three forms of SD 1.5 gave the same picture" if alike else "the forms of SD 1.5 gave different pictures")
    return 0 if alike else 1


def _try_form(name: str, make: Make, folder: Path) -> Image.Image:
    """One edit of two steps by a model of this form; its folder is removed."""
    begun = time.perf_counter()
    folder.mkdir()
    model = make(folder)
    made = time.perf_counter()
    gigabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9
    engine = Engine.load(str(model), "cpu", "float32")
    loaded = time.perf_counter()
    spec = EditSpec((SubInstruction("make the ball red", keyword="ball"),), num_inference_steps=2, strength=1, seed=0)
    edited = engine.edit(_picture(), spec).image
    done = time.perf_counter()
    print(
        f"{name}: made {made - begun:.0f} s, {gigabytes:.1f} GB; loaded {loaded - made:.0f} s; "
        f"2 steps at {SIDE} pixels {done - loaded:.0f} s, {len(set(edited.get_flattened_data()))} colours",
        flush=True,
    )
    shutil.rmtree(folder)
    return edited


def _picture() -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), "skyblue")
    picture.paste("firebrick", (40, 50, 90, 100))
    return picture


def _layout(folder: Path) -> Path:
    _random_pipeline(SD1).save_pretrained(folder)
    return folder


def _mislabelled(folder: Path) -> Path:
    source = _layout(folder / "source")
    for part, (pickled, safe) in NETWORKS.items():
        torch.save(load_file(source / part / safe), source / part / pickled)
        (source / part / safe).unlink()
    index = source / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "StableDiffusionPipeline"}))
    return _converted(source, folder / "converted")


def _original_v1(folder: Path) -> Path:
    """Its plain weights are zeros: only the averages can give the other forms' picture."""
    pipeline = _random_pipeline(SD1)
    averaged = original_names.with_averages(original_names.original_unet(pipeline.unet.state_dict(), 2), factor=1)
    zeros = {n: torch.zeros_like(t) for n, t in averaged.items() if n.startswith("model.")}
    return _original(folder, pipeline, {**averaged, **zeros}, original_names.original_clip)


def _original_v2(folder: Path) -> Path:
    pipeline = _random_pipeline(SD2)
    unet = original_names.original_unet(pipeline.unet.state_dict(), 2)
    return _original(folder, pipeline, unet, original_names.original_open_clip)


def _original(
    folder: Path,
    pipeline: StableDiffusionInstructPix2PixPipeline,
    unet: dict[str, Tensor],
    as_text: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> Path:
    vae, text = original_names.original_vae(pipeline.vae.state_dict()), as_text(pipeline.text_encoder.state_dict())
    torch.save({"state_dict": {**unet, **vae, **text}, "global_step": 22000}, folder / "model.ckpt")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    return _converted(folder / "model.ckpt", folder / "converted", "--tokenizer", str(folder / "tokenizer"))


def _converted(source: Path, out: Path, *options: str) -> Path:
    if convert([str(source), str(out), "--size", str(SIDE), *options]) != 0:
        raise SystemExit(1)
    return out


def _random_pipeline(architecture: Architecture) -> StableDiffusionInstructPix2PixPipeline:
    """The same random weights each time, in half precision."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    tokenizer.add_tokens([f"<unused{i}>" for i in range(VOCABULARY - len(tokenizer))])
    tokenizer.model_max_length = 77
    tokenizer.pad_token = architecture.pad
    text = CLIPTextConfig(
        **architecture.text,
        vocab_size=VOCABULARY,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return StableDiffusionInstructPix2PixPipeline(
        AutoencoderKL(**architecture.vae, sample_size=SIDE).half(),
        CLIPTextModel(text).half(),
        tokenizer,
        UNet2DConditionModel(**architecture.unet, sample_size=SIDE // 8).half(),
        EulerAncestralDiscreteScheduler(**SCHEDULER),
        None,
        None,
        requires_safety_checker=False,
    )


if __name__ == "__main__":
    sys.exit(main())
