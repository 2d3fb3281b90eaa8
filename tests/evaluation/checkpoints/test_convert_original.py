"""Original checkpoints become folders that the engine loads, with the same weights in their places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from evaluation.checkpoints import original_names
from evaluation.checkpoints.__main__ import main
from evaluation.checkpoints.architectures import SD1, SD2
from evaluation.checkpoints.original import convert_original, find_architecture
from evaluation.checkpoints.weights import CheckpointError, read_weights
from foi_core import EditSpec, SubInstruction
from foi_core.checkpoint import load
from foi_core.engine import Engine
from tests.evaluation.checkpoints.tiny_originals import TINY, tiny_original


def assert_same(ours: nn.Module, theirs: nn.Module, factor: float = 1) -> None:
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, other[name] * factor, rtol=0, atol=0)


@pytest.mark.parametrize("base", ["sd1", "sd2"])
def test_an_original_checkpoint_edits_after_conversion_with_every_weight_in_its_place(
    base: str, tmp_path: Path
) -> None:
    original = tiny_original(base, tmp_path / "tokenizer")
    torch.save({"state_dict": original.weights, "global_step": 22000}, tmp_path / "model.ckpt")
    weights = read_weights(tmp_path / "model.ckpt")
    assert find_architecture(weights).name == base
    convert_original(weights, TINY[base], tmp_path / "tokenizer", 64, tmp_path / "model")
    loaded = load(str(tmp_path / "model"), "cpu")
    assert loaded.resolution == 64
    assert loaded.scheduler.config.prediction_type == "epsilon"
    assert loaded.tokenizer.pad_token == (SD1 if base == "sd1" else SD2).pad
    assert_same(loaded.unet.source, original.unet)
    assert_same(loaded.vae, original.vae)
    assert_same(loaded.text_encoder, original.text_encoder)
    spec = EditSpec((SubInstruction("make the ball red", keyword="ball"),), num_inference_steps=1, seed=0)
    assert Engine.load(str(tmp_path / "model"), "cpu").edit(Image.new("RGB", (64, 64)), spec).image.size == (64, 64)


def test_the_moving_averages_are_taken_where_a_checkpoint_keeps_them(tmp_path: Path) -> None:
    original = tiny_original("sd1", tmp_path / "tokenizer")
    unet = {k: v for k, v in original.weights.items() if k.startswith("model.diffusion_model.")}
    weights = {**original.weights, **original_names.with_averages(unet, factor=0.5)}
    convert_original(weights, TINY["sd1"], tmp_path / "tokenizer", 64, tmp_path / "model")
    assert_same(load(str(tmp_path / "model"), "cpu").unet.source, original.unet, factor=0.5)


def test_half_precision_stays_half_on_disk(tmp_path: Path) -> None:
    original = tiny_original("sd1", tmp_path / "tokenizer")
    half = {name: tensor.half() for name, tensor in original.weights.items() if tensor.is_floating_point()}
    convert_original(half, TINY["sd1"], tmp_path / "tokenizer", 64, tmp_path / "model")
    stored = read_weights(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_a_text_to_image_checkpoint_is_refused_because_it_cannot_edit(tmp_path: Path) -> None:
    original = tiny_original("sd1", tmp_path / "tokenizer")
    first = "model.diffusion_model.input_blocks.0.0.weight"
    weights = {**original.weights, first: original.weights[first][:, :4]}
    with pytest.raises(CheckpointError, match="takes 4 channels, not 8"):
        convert_original(weights, TINY["sd1"], tmp_path / "tokenizer", 64, tmp_path / "model")


def test_a_checkpoint_of_another_shape_is_refused_with_the_first_part_that_does_not_fit(tmp_path: Path) -> None:
    original = tiny_original("sd1", tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match=r"UNet does not fit sd2.*proj_in"):
        convert_original(original.weights, TINY["sd2"], tmp_path / "tokenizer", 64, tmp_path / "model")


@pytest.mark.parametrize(
    ("prefix", "says"), [("cond_stage_model.", "no text encoder"), ("first_stage_model.", "no VAE"), ("model.", "UNet")]
)
def test_a_checkpoint_without_a_part_is_refused_by_the_name_of_the_part(
    prefix: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = tiny_original("sd1", tmp_path / "tokenizer")
    kept = {name: tensor.clone() for name, tensor in original.weights.items() if not name.startswith(prefix)}
    save_file(kept, tmp_path / "model.safetensors")
    arguments = [
        str(tmp_path / "model.safetensors"),
        str(tmp_path / "model"),
        "--tokenizer",
        str(tmp_path / "tokenizer"),
    ]
    assert main(arguments) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_without_a_tokenizer_the_converter_says_which_one_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.ckpt").touch()
    assert main([str(tmp_path / "model.ckpt"), str(tmp_path / "model")]) == 1
    assert "give --tokenizer" in capsys.readouterr().err


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    original = tiny_original("sd1", tmp_path / "tokenizer")
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    weights = {**original.weights, name: original.weights[name][:-3]}
    with pytest.raises(CheckpointError, match="the tokenizer has"):
        convert_original(weights, TINY["sd1"], tmp_path / "tokenizer", 64, tmp_path / "model")


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    assert main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "is there already" in capsys.readouterr().err
