"""Diffusers folders with `.bin` weights and another label become folders that the engine loads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from evaluation.checkpoints.__main__ import main
from foi_core import EditSpec, SubInstruction, UnsupportedCheckpoint
from foi_core.engine import Engine
from tests.tiny_model import build_tiny_model

WEIGHTS = {
    "unet/diffusion_pytorch_model": "unet/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model": "vae/diffusion_pytorch_model.bin",
    "text_encoder/model": "text_encoder/pytorch_model.bin",
}


def like_magicbrush(folder: Path) -> Path:
    """A tiny model as vinesmsuic/magicbrush-jul7 was published: pickled weights of an older transformers, another
    pipeline's label, another scheduler and a safety checker."""
    build_tiny_model(folder)
    for safe, pickled in WEIGHTS.items():
        tensors = load_file(folder / f"{safe}.safetensors")
        if safe.startswith("text"):
            tensors = {"text_model." + name.removeprefix("text_model."): t for name, t in tensors.items()}
            tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        torch.save(tensors, folder / pickled)
        (folder / f"{safe}.safetensors").unlink()
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "_class_name": "PNDMScheduler"}))
    return folder


def edit(model: Path) -> Image.Image:
    spec = EditSpec((SubInstruction("make the ball red", keyword="ball"),), num_inference_steps=2, seed=0)
    return Engine.load(str(model), "cpu").edit(Image.new("RGB", (64, 64), "teal"), spec).image


def test_a_mislabelled_folder_of_pickled_weights_edits_as_the_same_model_in_safetensors(tmp_path: Path) -> None:
    source = like_magicbrush(tmp_path / "source")
    with pytest.raises(UnsupportedCheckpoint):
        Engine.load(str(source), "cpu")
    assert main([str(source), str(tmp_path / "out")]) == 0
    assert not list((tmp_path / "out").rglob("*.bin"))
    assert edit(tmp_path / "out").tobytes() == edit(build_tiny_model(tmp_path / "same")).tobytes()


def test_a_mislabelled_folder_with_safetensors_needs_no_conversion(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model")
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "StableDiffusionPipeline"}))
    assert edit(folder).size == (64, 64)


def test_pickled_weights_that_hold_code_are_refused_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'harmed'}",)

    source = like_magicbrush(tmp_path / "source")
    torch.save({"a": torch.zeros(1), "b": Harmful()}, source / "vae" / "diffusion_pytorch_model.bin")
    assert main([str(source), str(tmp_path / "out")]) == 1
    assert "is refused" in capsys.readouterr().err
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "out").exists()


def test_a_text_to_image_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = build_tiny_model(tmp_path / "source", unet_channels=4)
    assert main([str(source), str(tmp_path / "out")]) == 1
    assert "takes 4 channels, not 8" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["unet/diffusion_pytorch_model.safetensors", "unet/config.json"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = build_tiny_model(tmp_path / "source")
    (source / missing).unlink()
    assert main([str(source), str(tmp_path / "out")]) == 1
    assert Path(missing).name in capsys.readouterr().err
