"""The bundled model is an ordinary diffusers checkpoint, small enough to carry."""

import json
from dataclasses import fields

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from demo.bundle import megabytes
from demo.train import BUNDLE
from foi_core import ModelDefaults


def test_the_bundle_is_at_most_25_megabytes_of_safetensors() -> None:
    assert 5 < megabytes(BUNDLE) <= 25
    assert [f.name for f in BUNDLE.rglob("*") if f.suffix in (".bin", ".pt", ".ckpt", ".pkl")] == []


def test_plain_diffusers_loads_it_as_an_instruct_pix2pix_pipeline() -> None:
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        BUNDLE, dtype=torch.float32, low_cpu_mem_usage=False
    )
    assert pipeline.unet.config.in_channels == 8
    assert all(torch.isfinite(p).all() for p in pipeline.unet.parameters())


def test_its_own_defaults_are_settings_that_exist() -> None:
    assert json.loads((BUNDLE / "foi.json").read_text()).keys() <= {f.name for f in fields(ModelDefaults)}
