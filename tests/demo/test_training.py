"""The trainer learns, and goes on after an interruption where it stopped."""

import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo import bundle, data, train_unet
from demo.models import build_vae
from demo.scenes import random_scene, render
from foi_core import EditSpec, SubInstruction
from foi_core.engine import Engine

CPU = torch.device("cpu")
LEG = 12 / 3600  # hours


class Clock:
    """A second passes at each look: a leg is as many steps on any machine."""

    def __init__(self) -> None:
        self._seconds = count()

    def monotonic(self) -> float:
        return next(self._seconds)


def test_two_legs_of_training_make_a_bundle_that_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SCENES_PER_SHARD", 4)
    monkeypatch.setattr(train_unet, "REPORT_EVERY", 0.0)
    monkeypatch.setattr(train_unet, "time", Clock())
    torch.manual_seed(0)
    vae = build_vae().eval()
    shards = data.make_shards(tmp_path / "data", vae, 2, 1, CPU)
    written = [shard.stat().st_mtime_ns for shard in shards]

    checkpoint = train_unet.train(tmp_path, shards, LEG, LEG, CPU, None)
    first = torch.load(checkpoint, weights_only=True)["progress"]["samples"]
    assert data.make_shards(tmp_path / "data", vae, 2, 1, CPU) == shards
    assert [shard.stat().st_mtime_ns for shard in shards] == written
    train_unet.train(tmp_path, shards, 2 * LEG, LEG, CPU, None)
    second = torch.load(checkpoint, weights_only=True)["progress"]["samples"]
    assert second > first > 0

    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in log] == sorted({line["samples"] for line in log})
    assert all(0 <= line["mask_iou"] <= 1 and line["denoising"] > 0 for line in log)

    bundle.write_checkpoint(tmp_path / "model", vae, checkpoint)
    engine = Engine.load(str(tmp_path / "model"), "cpu")
    picture = Image.fromarray(render(random_scene(np.random.default_rng(1))))
    spec = EditSpec((SubInstruction("make the sky pink"),), num_inference_steps=2, seed=0)
    assert engine.edit(picture, spec).image.size == picture.size
