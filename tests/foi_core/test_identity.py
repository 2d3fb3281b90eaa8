"""With full masks and no modulation, FoI is InstructPix2Pix: the same picture as diffusers' own pipeline makes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from PIL import Image

from demo.train import BUNDLE
from foi_core import EditSpec, SubInstruction, attention
from foi_core.engine import Engine
from tests.tiny_model import build_tiny_model


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)).resize((width, height))


def assert_identical(folder: Path, size: tuple[int, int], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`way`: ip2p; foi without modulation; or foi modulated by full masks with xi = 0, which Eq. 3 makes the same."""
    if way == "modulated":
        monkeypatch.setattr(attention, "xi", lambda _t: 0.0)
    image, text = picture(*size), "make the ball red"
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        folder, dtype=torch.float32, safety_checker=None, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = {}

    def keep(_pipeline: object, _step: int, _t: object, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        latents["theirs"] = tensors["latents"]
        return tensors

    arguments = {"num_inference_steps": 6, "guidance_scale": 4.0, "image_guidance_scale": 1.5}
    theirs = pipeline(
        text,
        image,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        callback_on_step_end=keep,
        **arguments,
    ).images[0]

    engine = Engine.load(str(folder), "cpu")
    decode = engine._model.decode
    monkeypatch.setattr(engine._model, "decode", lambda z: latents.setdefault("ours", z) is not None and decode(z))
    everywhere = Image.new("L", image.size, 255)
    spec = EditSpec(
        instructions=(SubInstruction(text, mask=everywhere),),
        method="ip2p" if way == "ip2p" else "foi",
        strength=1.0,
        seed=5,
        modulation_end=1.0 if way == "modulated" else 0.0,
        preserve_outside_mask=False,
        **arguments,  # type: ignore[arg-type]
    )
    ours = engine.edit(image, spec).image
    assert (latents["ours"] - latents["theirs"]).abs().max() <= 1e-5 * max(1, latents["theirs"].abs().max())
    assert np.abs(np.asarray(ours) / 255 - theirs).max() <= 1 / 255


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("way", ["ip2p", "not modulated", "modulated"])
@pytest.mark.parametrize("size", [(64, 64), (128, 64)])
def test_a_tiny_model_edits_exactly_as_diffusers_does(
    tmp_path: Path, prediction_type: str, way: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_identical(build_tiny_model(tmp_path, prediction_type), size, way, monkeypatch)


@pytest.mark.parametrize("way", ["not modulated", "modulated"])
def test_the_demo_model_edits_exactly_as_diffusers_does(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_identical(BUNDLE, (128, 128), way, monkeypatch)
