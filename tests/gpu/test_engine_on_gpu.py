"""The engine on a GPU: what graphs, compilation and streams must not change. Skipped where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foi_core import EditSpec, SubInstruction
from foi_core.batching import BatchingEngine, Capacity
from foi_core.engine import Engine, Execution
from foi_core.graphs import GraphedUNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

SAMPLE = Path(__file__).parent.parent.parent / "demo" / "samples" / "scene.png"
TWO = (SubInstruction("make the ball blue"), SubInstruction("turn the grass into sand"))


def specs() -> list[EditSpec]:
    return [
        EditSpec(TWO, seed=1),
        EditSpec(TWO, seed=2, preset="paper", num_inference_steps=12),
        EditSpec(TWO[:1], seed=3, method="ip2p", num_inference_steps=9),
        EditSpec(TWO[:1], seed=4, image_guidance_scale=1.0),
    ]


def share_within_one_level(one: Image.Image, other: Image.Image) -> float:
    difference = np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max(axis=-1)
    return float((difference <= 1).mean())


@pytest.mark.parametrize("execution", ["graphs", "compiled"])
def test_however_passes_run_the_picture_is_the_same(execution: Execution) -> None:
    picture = Image.open(SAMPLE).convert("RGB")
    eager, other = Engine.load("demo", "cuda", execution="eager"), Engine.load("demo", "cuda", execution=execution)
    for spec in specs():
        pictures = [engine.edit(picture, spec).image for engine in (eager, other)]
        assert share_within_one_level(*pictures) >= 0.99
    graphed = other._denoiser.predict
    assert isinstance(graphed, GraphedUNet)
    assert graphed._works
    assert execution == "compiled" or graphed._recordings


def test_edits_that_share_batches_and_streams_are_what_they_are_alone() -> None:
    picture = Image.open(SAMPLE).convert("RGB")
    engine = Engine.load("demo", "cuda")
    alone = [engine.edit(picture, spec).image for spec in specs()]
    batching = BatchingEngine(engine, Capacity(4, 10**6))
    for _ in range(3):
        tickets = [batching.submit(picture, spec) for spec in specs()]
        for ticket, one in zip(tickets, alone, strict=True):
            assert share_within_one_level(ticket.result.result(timeout=120).image, one) >= 0.99
    batching.close()


def test_a_step_waits_for_nothing_on_the_device_but_the_step_before_the_last() -> None:
    engine = Engine.load("demo", "cuda", execution="eager")
    picture = Image.open(SAMPLE).convert("RGB")
    state = engine.admit(picture, EditSpec(TWO, seed=1, num_inference_steps=30))
    for _ in range(3):  # masks are read in the first
        engine.step([state])
    torch.cuda.set_sync_debug_mode("error")
    try:
        while state.step < state.steps - 1:
            engine.step([state])
    finally:
        torch.cuda.set_sync_debug_mode("default")
