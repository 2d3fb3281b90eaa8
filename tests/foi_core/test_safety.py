"""The safety checker that a checkpoint ships: read, asked about every result, and believed."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil

from foi_core import EditSpec, SubInstruction, UnsafeResult, UnsupportedCheckpoint
from foi_core.batching import BatchingEngine, Capacity
from foi_core.checkpoint import load
from foi_core.engine import Engine
from foi_core.finishing import Decoded
from foi_core.result import EditResult
from foi_core.safety import SafetyChecker
from tests.tiny_model import build_tiny_model

WIDTH = 32
BALL = (SubInstruction("make the ball red", keyword="ball"),)
ALWAYS, NEVER = -1.5, 1.5


def add_safety_checker(folder: Path, threshold: float, like: Tensor | None = None) -> Path:
    """A small checker of the real kind: a picture is flagged where the cosine of its embedding with a concept is above
    `threshold`. The concepts are random, or the embedding of `like`."""
    torch.manual_seed(0)
    small = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "vocab_size": 2}
    config = CLIPConfig(
        text_config={**small, **special}, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    network = StableDiffusionSafetyChecker(config).eval()
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    with torch.no_grad():
        network.concept_embeds.normal_()
        network.special_care_embeds.normal_()
        network.special_care_embeds_weights.fill_(NEVER)
        network.concept_embeds_weights.fill_(threshold)
        if like is not None:
            seen = processor(images=[to_picture(like)], return_tensors="pt").pixel_values
            network.concept_embeds[:] = network.visual_projection(network.vision_model(seen)[1])
    network.save_pretrained(folder / "safety_checker")
    processor.save_pretrained(folder / "feature_extractor")
    index = folder / "model_index.json"
    parts = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    index.write_text(json.dumps({**json.loads(index.read_text()), **parts}))
    return folder


def plain(colour: tuple[float, float, float]) -> Tensor:
    """(3, 64, 64) in [-1, 1]."""
    return torch.tensor(colour)[:, None, None].expand(3, 64, 64)


RED, GREEN = plain((1, -1, -1)), plain((-1, 1, -1))


def to_picture(pixels: Tensor) -> Image.Image:
    levels = ((pixels + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def checker_of(folder: Path, dtype: str = "auto") -> SafetyChecker:
    safety = load(str(folder), "cpu", dtype, safety_checker="report").safety
    assert safety is not None
    return safety


def edit(engine: Engine, method: str = "foi") -> EditResult:
    return engine.edit(
        Image.new("RGB", (64, 64), "teal"),
        EditSpec(BALL, method=method, num_inference_steps=2, seed=0),  # type: ignore[arg-type]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "model")


@pytest.mark.parametrize(("threshold", "flagged"), [(ALWAYS, True), (NEVER, False)])
def test_every_result_has_the_checkers_verdict(threshold: float, flagged: bool, folder: Path) -> None:
    add_safety_checker(folder, threshold)
    engine = Engine.load(str(folder), "cpu", safety_checker="report")
    assert edit(engine).flagged is flagged
    assert edit(engine, "ip2p").flagged is flagged
    assert edit(engine, "masks").flagged is None  # no picture was made


def test_a_flagged_result_is_withheld_unless_the_operator_says_otherwise(folder: Path) -> None:
    add_safety_checker(folder, ALWAYS)
    engine = Engine.load(str(folder), "cpu")
    with pytest.raises(UnsafeResult, match="another seed"):
        edit(engine)
    engine.warm_up()  # whose result nobody sees
    assert edit(engine, "masks").masks
    assert edit(Engine.load(str(folder), "cpu", safety_checker="off")).flagged is None


def test_a_checkpoint_without_a_checker_gives_no_verdict(folder: Path) -> None:
    assert edit(Engine.load(str(folder), "cpu")).flagged is None


def test_a_verdict_is_the_one_that_diffusers_gives(folder: Path) -> None:
    add_safety_checker(folder, 0.999, like=RED)
    pipeline = SimpleNamespace(
        safety_checker=StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker"),
        feature_extractor=CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor"),
        image_processor=VaeImageProcessor(vae_scale_factor=2),
    )
    safety = checker_of(folder)
    for pixels, flagged in ((RED, True), (GREEN, False)):
        _, (theirs,) = StableDiffusionInstructPix2PixPipeline.run_safety_checker(
            pipeline, pixels[None].clone(), torch.device("cpu"), torch.float32
        )
        assert safety.flags(pixels) is theirs is flagged


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_checker_works_in_the_models_precision_and_leaves_the_pixels_alone(dtype: str, folder: Path) -> None:
    add_safety_checker(folder, 0.99, like=RED)
    safety = load(str(folder), "cpu", dtype, safety_checker="report").safety
    assert safety is not None
    pixels = RED.clone()
    assert safety.flags(pixels)
    assert not safety.flags(GREEN)
    assert torch.equal(pixels, RED)


def test_a_checker_under_the_names_of_older_libraries_is_read_whole(folder: Path) -> None:
    add_safety_checker(folder, 0.999, like=RED)
    file = folder / "safety_checker" / "model.safetensors"
    tensors = load_file(file)
    older = {name.replace("vision_model.", "vision_model.vision_model.", 1): t for name, t in tensors.items()}
    save_file({**older, "vision_model.vision_model.embeddings.position_ids": torch.arange(17)[None]}, file)
    assert len(older.keys() - tensors.keys()) > 20
    safety = checker_of(folder)
    assert (safety.flags(RED), safety.flags(GREEN)) == (True, False)


@pytest.mark.parametrize(
    ("missing", "tells"),
    [
        ("safety_checker/model.safetensors", ("lacks safety_checker/model.safetensors", "FOI_SAFETY_CHECKER=off")),
        ("feature_extractor/preprocessor_config.json", ("feature_extractor cannot be read",)),
    ],
)
def test_a_checker_that_is_not_whole_is_no_reason_to_go_without(
    missing: str, tells: tuple[str, ...], folder: Path
) -> None:
    add_safety_checker(folder, NEVER)
    (folder / missing).unlink()
    with pytest.raises(UnsupportedCheckpoint) as caught:
        load(str(folder), "cpu")
    assert all(part in str(caught.value) for part in tells)
    assert load(str(folder), "cpu", safety_checker="off").safety is None


def test_a_checker_that_lacks_a_weight_is_refused_and_not_filled_with_noise(folder: Path) -> None:
    add_safety_checker(folder, NEVER)
    file = folder / "safety_checker" / "model.safetensors"
    tensors = load_file(file)
    del tensors["concept_embeds"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpoint, match="it lacks concept_embeds"):
        load(str(folder), "cpu")


def test_among_edits_in_flight_a_flagged_one_fails_alone(folder: Path) -> None:
    add_safety_checker(folder, 0.999, like=RED)
    engine = Engine.load(str(folder), "cpu")
    decode, decoded = engine._model.decode, iter([RED[None], GREEN[None]])
    engine._model.decode = lambda latents: next(decoded).expand_as(decode(latents))  # type: ignore[method-assign]
    batching = BatchingEngine(engine, Capacity(2, 10**6))
    try:
        spec = EditSpec(BALL, num_inference_steps=2, seed=0)
        picture = Image.new("RGB", (64, 64), "teal")
        first, second = (batching.submit(picture, spec).result for _ in range(2))
        assert isinstance(outcome(first), UnsafeResult)
        assert isinstance(fine := outcome(second), Decoded)
        assert fine.flagged is False
    finally:
        batching.close()


def outcome(future: Future[Decoded]) -> Decoded | BaseException:
    return future.exception(timeout=60) or future.result()
