"""A diffusers folder that the engine does not load as it is: `.bin` weights, or labelled as another pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from evaluation.checkpoints.weights import CheckpointError, read_weights

# The networks of a pipeline, with the names of their weights without and with safetensors.
NETWORKS = {
    "unet": ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"),
    "vae": ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"),
    "text_encoder": ("pytorch_model.bin", "model.safetensors"),
}
# Whatever the source calls itself: its own index could name any class.
INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionInstructPix2PixPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
}


def convert_folder(source: Path, out: Path) -> None:
    """Writes `out`: `source` with safetensors weights and labelled as the InstructPix2Pix pipeline.

    For checkpoints such as vinesmsuic/magicbrush-jul7, which has `.bin` weights and calls itself a
    StableDiffusionPipeline. Safety checker and feature extractor are left out: the engine has none. Raises
    CheckpointError for a part that is missing, and for weights that are not only weights.
    """
    unet = _read_json(source / "unet" / "config.json")
    if unet.get("in_channels") != 8:
        raise CheckpointError(
            f"{source / 'unet'} takes {unet.get('in_channels')} channels, not 8 (noisy latent and image latent): it "
            "is no InstructPix2Pix model, and cannot edit"
        )
    for part in (*NETWORKS, "tokenizer", "scheduler"):
        if not (source / part).is_dir():
            raise CheckpointError(f"{source} has no folder {part}: it is no whole pipeline")
        _copy_small_files(source / part, out / part)
    for part, (pickled, safe) in NETWORKS.items():
        _convert_weights(source / part, pickled, out / part / safe)
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n", encoding="utf-8")


def _convert_weights(folder: Path, pickled: str, target: Path) -> None:
    """Copies safetensors weights where they are, else writes the `.bin` ones as safetensors."""
    if (folder / target.name).is_file():
        shutil.copyfile(folder / target.name, target)
    elif (folder / pickled).is_file():
        # Cloned: parameters that share memory cannot be saved as safetensors.
        tensors = {name: tensor.clone().contiguous() for name, tensor in read_weights(folder / pickled).items()}
        save_file(tensors, target, metadata={"format": "pt"})
    else:
        raise CheckpointError(f"{folder} has neither {target.name} nor {pickled}")


def _copy_small_files(source: Path, out: Path) -> None:
    """Configurations and vocabularies: all but weights."""
    out.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix in (".json", ".txt"):
            shutil.copyfile(file, out / file.name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Expected a folder in diffusers' layout.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no object")
    return content
