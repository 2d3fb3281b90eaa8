"""Checkpoints in diffusers' layout: what is read from them, and what is said about those that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from foi_core import EditSpec, SubInstruction, UnsupportedCheckpoint
from foi_core.checkpoint import load
from foi_core.engine import Engine
from foi_core.hub import PINNED
from tests.full_size import SIDE, write_full_size
from tests.tiny_model import build_tiny_model

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def configured(file: str, **values: object) -> Change:
    """`values` written into a JSON file of the checkpoint."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, **values}))

    return change


def without(name: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def truncated(part: str) -> Change:
    def change(folder: Path) -> None:
        file = folder / part / WEIGHTS[part]
        file.write_bytes(file.read_bytes()[:1000])

    return change


def reweighted(part: str, change_weights: Callable[[dict[str, torch.Tensor], str], object]) -> Change:
    """A safetensors file whose first weight of two dimensions or more is changed."""

    def change(folder: Path) -> None:
        file = folder / part / WEIGHTS[part]
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        change_weights(tensors, next(name for name, tensor in sorted(tensors.items()) if tensor.ndim > 1))
        save_file(tensors, file, metadata={"format": "pt"})

    return change


def reshape(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = torch.zeros(3, 3)


def drop(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def pickled(folder: Path) -> None:
    """As checkpoints were published before safetensors, and as vinesmsuic/magicbrush-jul7 still is."""
    for part, name in WEIGHTS.items():
        file = folder / part / name
        stem = "pytorch_model" if part == "text_encoder" else file.stem
        torch.save(load_file(file), file.with_name(f"{stem}.bin"))
        file.unlink()
    configured("model_index.json", _class_name="StableDiffusionPipeline")(folder)
    configured("scheduler/scheduler_config.json", _class_name="PNDMScheduler", skip_prk_steps=True)(folder)


def only_an_original(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "instruct-pix2pix-00-22000.ckpt").write_bytes(b"")


UNUSABLE: dict[str, tuple[Change, tuple[str, ...]]] = {
    "text-to-image": (configured("unet/config.json", in_channels=4), ("4 channels, not 8", "text-to-image")),
    "inpainting": (configured("unet/config.json", in_channels=9), ("9 channels, not 8", "inpainting")),
    "six channels": (configured("unet/config.json", in_channels=6), ("6 channels, not 8",)),
    "SDXL by label": (configured("model_index.json", _class_name="StableDiffusionXLPipeline"), ("SDXL",)),
    "SDXL by parts": (configured("model_index.json", text_encoder_2=["transformers", "CLIPTextModel"]), ("SDXL",)),
    "SDXL by UNet": (configured("unet/config.json", addition_embed_type="text_time"), ("SDXL",)),
    "another text width": (configured("text_encoder/config.json", hidden_size=64), ("width 32", "gives 64")),
    "another text encoder": (configured("text_encoder/config.json", model_type="t5"), ("text_encoder is t5",)),
    "another UNet": (configured("unet/config.json", _class_name="SD3Transformer2DModel"), ("1.x or 2.x", "SD3")),
    "other blocks": (configured("unet/config.json", down_block_types=["KDownBlock2D"] * 2), ("unet has KDownBlock2D",)),
    "another VAE": (configured("vae/config.json", _class_name="AsymmetricAutoencoderKL"), ("vae is Asymmetric",)),
    "a scheduler of samples": (
        configured("scheduler/scheduler_config.json", prediction_type="sample"),
        ("neither noise nor velocity",),
    ),
    "no VAE": (without("vae"), ("has no vae", "model_index.json and the folders unet, vae")),
    "no scheduler": (without("scheduler"), ("has no scheduler",)),
    "no tokenizer": (without("tokenizer"), ("has no tokenizer",)),
    "no vocabulary": (without("tokenizer/tokenizer.json"), ("vocab.json and merges.txt",)),
    "no UNet config": (without("unet/config.json"), ("unet/config.json cannot be read",)),
    "no index": (without("model_index.json"), ("no model_index.json", "diffusers' layout")),
    "a broken index": (lambda f: (f / "model_index.json").write_text("{"), ("model_index.json cannot be read",)),  # type: ignore[dict-item,return-value]
    "an original": (only_an_original, ("00-22000.ckpt", "python -m evaluation.checkpoints FILE")),
    "no weights": (without(f"vae/{WEIGHTS['vae']}"), (f"lacks vae/{WEIGHTS['vae']}", "there is vae/config.json")),
    "pickles": (pickled, ("FOI_ALLOW_PICKLE=true", "can run code", "python -m evaluation.checkpoints")),
    **{f"truncated {p}": (truncated(p), (f"{p}/{WEIGHTS[p]} cannot be read", "get it again")) for p in WEIGHTS},
    **{f"other shape in {p}": (reweighted(p, reshape), (f"{p}/{WEIGHTS[p]} does not fit",)) for p in WEIGHTS},
    **{f"missing weight in {p}": (reweighted(p, drop), (f"{p}/{WEIGHTS[p]} does not fit",)) for p in WEIGHTS},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_refused_in_one_line_that_says_why(name: str, folder: Path) -> None:
    change, tells = UNUSABLE[name]
    change(folder)
    with pytest.raises(UnsupportedCheckpoint) as caught:
        load(str(folder), "cpu")
    message = str(caught.value)
    assert all(part in message for part in tells), message
    assert "\n" not in message
    assert str(folder) in message


def test_a_single_file_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"")
    with pytest.raises(UnsupportedCheckpoint, match=f"evaluation.checkpoints {file} OUT_FOLDER --tokenizer DIR"):
        load(str(file), "cpu")


def first_bias(folder: Path, dtype: str) -> float:
    model = load(str(folder), "cpu", dtype)
    assert {weight.dtype for weight in model.vae.parameters()} == {getattr(torch, dtype)}
    return float(model.vae.decoder.conv_in.bias[0])


def filled(value: float) -> Callable[[dict[str, torch.Tensor], str], object]:
    return lambda tensors, _: tensors["decoder.conv_in.bias"].fill_(value)


def halved(folder: Path) -> None:
    """Every part as its fp16 variant only."""
    for part, name in WEIGHTS.items():
        file = folder / part / name
        tensors = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(tensors, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        file.unlink()


def test_the_variant_in_half_precision_is_taken_for_half_precision_only(folder: Path) -> None:
    full = folder / "vae" / WEIGHTS["vae"]
    reweighted("vae", filled(0.25))(folder)
    shutil.copy(full, full.with_suffix(".fp16.safetensors"))
    reweighted("vae", filled(0.5))(folder)
    values = {dtype: first_bias(folder, dtype) for dtype in ("float16", "bfloat16", "float32")}
    assert values == {"float16": 0.25, "bfloat16": 0.5, "float32": 0.5}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_checkpoint_of_one_precision_serves_every_other(dtype: str, folder: Path) -> None:
    reweighted("vae", filled(0.25))(folder)
    assert first_bias(folder, dtype) == 0.25
    halved(folder)
    assert first_bias(folder, dtype) == 0.25


def test_pickles_are_read_where_they_are_allowed_and_edit_the_same(whole: Path, folder: Path) -> None:
    pickled(folder)
    assert edited(Engine.load(str(folder), "cpu", allow_pickle=True)) == edited(Engine.load(str(whole), "cpu"))


def test_safetensors_are_read_even_where_pickles_are_allowed(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"not read")
    load(str(folder), "cpu", allow_pickle=True)


def test_weights_under_the_names_of_older_libraries_are_read(whole: Path, folder: Path) -> None:
    def older(tensors: dict[str, torch.Tensor], _: str) -> None:
        for name in list(tensors):
            for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
                if f".attentions.0.{new}." in name:
                    tensors[name.replace(new, old)] = tensors.pop(name)

    def prefixed(tensors: dict[str, torch.Tensor], _: str) -> None:
        for name in list(tensors):
            tensors["text_model." + name.removeprefix("text_model.")] = tensors.pop(name)
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]

    reweighted("vae", older)(folder)
    reweighted("text_encoder", prefixed)(folder)
    assert any(".query." in name for name in load_file(folder / "vae" / WEIGHTS["vae"]))
    assert edited(Engine.load(str(folder), "cpu")) == edited(Engine.load(str(whole), "cpu"))


def edited(engine: Engine, side: int = 64) -> bytes:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    two = (SubInstruction("make the ball red", keyword="ball"), SubInstruction("turn the sky orange", keyword="sky"))
    result = engine.edit(picture, EditSpec(two, num_inference_steps=2, strength=1, seed=0, preserve_outside_mask=False))
    assert result.image.size == (side, side)
    assert [mask.size for mask in result.masks] == [(side, side)] * 2
    assert len(set(result.image.get_flattened_data())) > 100
    return result.image.tobytes()


@pytest.fixture(scope="module")
def full_size() -> Iterator[Path]:
    """2 GB, gone afterwards."""
    with TemporaryDirectory() as place:
        yield write_full_size(Path(place) / "model")


def test_a_checkpoint_of_the_real_size_edits_by_its_id_from_the_cache(
    full_size: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 850e6 < (full_size / "unet" / WEIGHTS["unet"]).stat().st_size / 2 < 870e6
    snapshots = tmp_path / "models--timbrooks--instruct-pix2pix" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / PINNED["timbrooks/instruct-pix2pix"]).symlink_to(full_size)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    edited(Engine.load("timbrooks/instruct-pix2pix", "cpu"), SIDE)
